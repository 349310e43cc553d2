"""The service proxy: virtual addresses and node ports as iptables rules."""
