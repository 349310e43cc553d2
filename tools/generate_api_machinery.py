"""Write ``docs/api-machinery.md``: what real clients rely on, and the tests that show it.

``tests/unit/api/test_api_machinery.py`` checks that the committed file is current and names tests that there are.

Run: ``python tools/generate_api_machinery.py``.
"""

import ast
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PATH = ROOT / "docs" / "api-machinery.md"

# Where the tests lie that rows name by a short word.
FILES = {
    "paths": "tests/unit/master/rest/test_paths.py",
    "forms": "tests/unit/master/rest/test_forms.py",
    "verbs": "tests/unit/master/rest/test_verbs.py",
    "routes": "tests/unit/master/rest/test_routes.py",
    "watch": "tests/unit/master/rest/test_watch.py",
    "streams": "tests/unit/master/rest/test_streams.py",
    "proxy": "tests/unit/master/rest/test_proxy.py",
    "spdy": "tests/unit/master/rest/test_spdy.py",
    "cache": "tests/unit/master/core/test_cache.py",
    "lifecycle": "tests/unit/master/core/test_lifecycle.py",
    "writes": "tests/unit/master/core/test_writes.py",
    "grpc-access": "tests/unit/master/core/test_grpc_access.py",
    "grpc-targets": "tests/unit/master/core/test_grpc_admission.py",
    "garbage": "tests/unit/master/controllers/test_garbage.py",
    "housekeeping": "tests/unit/master/controllers/test_housekeeping.py",
    "storage-protection": "tests/unit/master/controllers/test_storage_protection.py",
    "schema": "tests/unit/api/test_schema.py",
    "columns": "tests/unit/api/test_columns.py",
    "selectors": "tests/unit/api/test_selectors.py",
    "protobuf": "tests/unit/api/test_protobuf.py",
    "patch": "tests/unit/api/test_patch.py",
    "apply": "tests/unit/api/test_apply.py",
    "codec": "tests/unit/api/test_codec.py",
    "managers": "tests/property/test_managers.py",
    "openapi-requests": "tests/property/test_openapi_requests.py",
    "rest-requests": "tests/property/test_rest_requests.py",
    "custom-requests": "tests/property/test_custom_requests.py",
    "reads": "tests/contract/storage/test_reads.py",
    "list-and-watch": "tests/contract/storage/test_list_and_watch.py",
    "registry": "tests/contract/storage/test_registry.py",
    "resize": "tests/contract/storage/test_resize.py",
    "agent": "tests/unit/node_agent/test_agent.py",
    "custom": "tests/contract/storage/test_custom.py",
    "storage": "tests/contract/storage/test_storage.py",
    "rest-and-grpc": "tests/contract/resources/test_rest_and_grpc.py",
    "identity": "tests/contract/access/test_identity.py",
    "permissions": "tests/contract/access/test_permissions.py",
    "audit-and-flows": "tests/contract/access/test_audit_and_flows.py",
    "grpc": "tests/contract/access/test_grpc.py",
    "authentication": "tests/unit/master/access/test_authentication.py",
    "fairness": "tests/unit/master/access/test_fairness.py",
    "kubectl": "tests/clients/test_kubectl.py",
    "custom-kinds": "tests/clients/test_custom_kinds.py",
    "python": "tests/clients/test_python_client.py",
}


class Row(NamedTuple):
    """One thing that clients rely on."""

    what: str
    tests: str  # "file::[Class::]function", by the short words above, a line each
    not_: str = ""  # what of it is not so here


ROWS: dict[str, list[Row]] = {
    "Finding out what there is": [
        Row(
            "Discovery per group and aggregated (v2 and v2beta1), in the content type that was asked for",
            """
            paths::test_old_discovery_leads_to_every_resource
            paths::test_aggregated_discovery_echoes_what_was_asked
            paths::test_aggregated_discovery_is_not_sent_twice
            paths::test_a_client_that_prefers_plain_discovery_gets_it
            kubectl::test_explain_and_discovery
            """,
        ),
        Row(
            "OpenAPI v2 as JSON and protobuf, v3 by its index of hashes; merge keys, list types and kinds as published",
            """
            paths::test_openapi_v2_is_the_same_in_both_forms
            paths::test_openapi_v3_is_found_through_its_index_and_never_changes_under_a_hash
            paths::test_a_custom_kind_is_described_at_once_and_changes_no_other_group
            schema::test_lists_say_how_they_merge
            schema::test_required_fields_are_those_of_the_published_document
            kubectl::test_client_side_validation
            """,
        ),
        Row(
            "`/version`, `/healthz`, `/livez`, `/readyz?verbose`, `/metrics`",
            """
            paths::test_version
            paths::test_health_needs_no_user_and_readiness_needs_the_cache
            paths::test_metrics_count_what_was_served
            """,
        ),
    ],
    "What a request and an answer may look like": [
        Row(
            "JSON and YAML both ways; protobuf bodies are read; who asks for protobuf or CBOR alone gets 406, and 415 "
            "for a body in CBOR, upon which clients ask for JSON",
            """
            verbs::test_yaml_goes_in_and_out
            verbs::test_unreadable_bodies_are_refused
            forms::test_the_first_form_that_we_write_wins
            forms::test_what_we_cannot_write_is_refused
            protobuf::test_kubectls_own_bodies_read_as_its_own_json
            """,
            "answers in protobuf or CBOR",
        ),
        Row(
            "Tables of objects, lists and watches, with `includeObject`; for custom kinds by their printer columns",
            """
            forms::test_one_object_as_a_table
            forms::test_what_travels_beside_a_row
            watch::test_tables_name_their_columns_once
            columns::test_an_empty_object_of_every_kind_has_a_cell_for_each_column
            kubectl::test_get_in_every_form
            custom-kinds::test_the_life_of_a_custom_kind
            """,
        ),
        Row(
            "PartialObjectMetadata, of lists and watches too",
            """
            forms::test_a_list_as_bare_metadata
            watch::test_metadata_only
            """,
        ),
        Row(
            "`fieldValidation`: unknown and repeated fields are refused, warned of or ignored",
            """
            verbs::test_unknown_and_repeated_fields
            registry::TestCreate::test_unknown_fields
            custom::TestObjects::test_unknown_fields_are_told_or_refused
            """,
        ),
        Row(
            "Refusals are Status objects with reason and causes; `Retry-After` where coming again helps",
            """
            verbs::test_refusals_of_the_registry_become_statuses
            verbs::test_clients_are_told_when_to_come_back
            registry::TestCreate::test_all_faults_at_once
            """,
        ),
        Row(
            "`Warning`, `Audit-Id` and flow-control headers; large answers compressed",
            """
            verbs::test_every_answer_carries_its_headers
            verbs::test_large_answers_are_compressed_when_asked
            audit-and-flows::test_audit_log_and_flow_headers
            """,
        ),
        Row(
            "Nothing that a client sends has a 5xx or a traceback for an answer",
            """
            openapi-requests::test_no_request_is_too_much
            openapi-requests::test_no_object_in_protobuf_is_too_much
            rest-requests::test_any_document_anywhere
            rest-requests::test_any_bytes_instead_of_http
            custom-requests::test_any_definition
            custom-requests::test_any_object_of_any_schema
            codec::test_defaults_leave_it_to_decoding_to_refuse_what_has_not_the_kinds_shape
            """,
        ),
    ],
    "Lists": [
        Row(
            "Pages show one state; `remainingItemCount` without selectors alone; a token of nobody's is refused",
            """
            reads::TestList::test_in_pages_shows_one_state
            reads::TestList::test_in_pages_with_a_selector
            reads::TestList::test_of_few_among_many_is_read_in_few_steps
            reads::TestList::test_with_a_token_that_nobody_gave
            reads::TestList::test_with_a_token_of_another_namespace_shows_only_its_own
            python::test_a_list_in_pages_is_one_state
            """,
        ),
        Row(
            "410 for a page whose history is gone, with a token that goes on in the newest state",
            """
            reads::TestList::test_whose_history_is_gone_offers_to_go_on
            """,
        ),
        Row(
            "`resourceVersion`: unset is the newest by a quorum, `0` what is there, n not older or exactly; a version "
            "that has not come is 504 ResourceVersionTooLarge with `Retry-After`",
            """
            reads::TestList::test_at_an_exact_version
            reads::TestList::test_of_a_version_that_has_not_come
            reads::TestList::test_sees_what_another_master_wrote
            reads::TestList::test_is_newest_though_others_write_elsewhere_in_the_store
            verbs::test_list_options_that_do_not_go_together_are_refused
            cache::test_one_question_answers_for_everybody_who_waits
            """,
        ),
        Row(
            "Field selectors of every kind that has some, selectable fields of custom kinds; others are refused",
            """
            selectors::test_every_kind_is_selected_by_the_fields_that_clients_name
            reads::TestList::test_field_that_cannot_be_selected
            custom::TestObjects::test_selectable_fields
            """,
        ),
    ],
    "Watches": [
        Row(
            "From a version what came after, without one what is there first; each event at once, headers before any",
            """
            reads::TestWatch::test_from_a_version_tells_what_came_after
            reads::TestWatch::test_without_a_version_begins_with_what_is
            watch::test_headers_come_before_anything_happens
            watch::test_events_come_as_they_happen
            watch::test_old_paths_watch_one_object
            """,
        ),
        Row(
            "DELETED shows the last state under the deletion's version; selectors turn changes into comings and goings",
            """
            reads::TestWatch::test_deleted_shows_the_last_state_at_the_deletions_version
            reads::TestWatch::test_selector_turns_changes_into_comings_and_goings
            reads::TestWatch::test_by_field
            """,
        ),
        Row(
            "Bookmarks, one of them before the watch ends by `timeoutSeconds`",
            """
            reads::TestWatch::test_ends_with_a_bookmark_to_go_on_from
            watch::test_it_ends_in_order_after_its_time
            """,
        ),
        Row(
            "`sendInitialEvents` ends them with the annotated bookmark",
            """
            reads::TestWatch::test_as_a_list_ends_it_with_a_bookmark
            watch::test_initial_events_end_with_a_marked_bookmark
            """,
        ),
        Row(
            "What is too old is an ERROR event with 410; so is a lost history of the store, and a client too slow",
            """
            reads::TestWatch::test_from_a_version_too_old
            watch::test_history_that_is_gone_is_told_as_an_error_event
            cache::test_who_watches_what_changed_unseen_lists_again
            cache::test_slow_watcher_is_cut_and_told
            watch::test_a_client_that_does_not_read_is_cut
            python::test_too_old_a_watch_is_expired
            """,
        ),
        Row(
            "Who lists and watches ends with what the store has, through changes of master, compaction, breaks and "
            "slowness; on our store and on three members of etcd",
            """
            list-and-watch::test_readers_end_with_what_the_store_has
            reads::test_list_and_watch_give_the_stores_own_state
            reads::TestWatch::test_goes_on_where_another_master_left_off
            """,
        ),
    ],
    "Writes": [
        Row(
            "Names are generated, and generated again when taken",
            """
            registry::TestCreate::test_generated_names_differ
            lifecycle::test_generated_names_fit
            """,
        ),
        Row(
            "Updates need the newest version, or none; what changes nothing writes nothing; generation counts specs",
            """
            registry::TestUpdate::test_needs_the_newest_version
            registry::TestUpdate::test_without_a_version_is_unconditional
            registry::TestUpdate::test_without_a_version_where_one_is_demanded
            registry::TestUpdate::test_of_another_life
            registry::TestUpdate::test_that_changes_nothing_writes_nothing
            registry::TestUpdate::test_generation_counts_specs_alone
            """,
        ),
        Row(
            "Status and the rest are written apart",
            """
            registry::TestUpdate::test_main_and_status_are_written_apart
            custom::TestObjects::test_spec_and_status_are_written_apart
            """,
        ),
        Row(
            "JSON, merge and strategic patches, tried again after conflicts; 415 for strategic ones of custom kinds",
            """
            patch::test_strategic_merge
            patch::test_merge_patch_is_the_rfc
            registry::TestPatch::test_concurrent_patches_all_take_effect
            registry::TestPatch::test_json_patch_whose_test_fails
            custom::TestObjects::test_patches
            """,
        ),
        Row(
            "Server-side apply: managers, conflicts, force; updates and patches own fields, too",
            """
            apply::test_another_managers_value_is_a_conflict_and_force_takes_it_over
            apply::test_what_an_apply_must_not_do
            registry::TestApply::test_conflicts_with_another_manager_unless_forced
            registry::TestApply::test_updates_take_fields_over
            registry::TestApply::test_bookkeeping_is_not_the_clients_to_write
            managers::test_managers_own_what_the_rules_say
            kubectl::test_apply_on_the_server_owns_and_conflicts
            """,
        ),
        Row(
            "Deleting with preconditions, grace, finalizers and propagation; whole collections",
            """
            registry::TestDelete::test_preconditions
            registry::TestDelete::test_finalizers_hold_until_the_last_is_taken_away
            registry::TestDelete::test_propagation
            registry::TestDelete::test_collection
            registry::TestPods::test_running_get_grace_until_their_agent_deletes_them
            garbage::test_what_becomes_of_a_dependent
            housekeeping::test_in_the_foreground_the_owner_goes_last
            registry::TestNamespaces::test_are_emptied_before_they_go
            storage-protection::test_a_claim_stays_until_its_last_pod_has_gone
            """,
        ),
        Row(
            "`dryRun=All` stores nothing and takes no address",
            """
            registry::TestCreate::test_dry_run_stores_nothing
            registry::TestDelete::test_dry_run_leaves_it
            kubectl::test_dry_run_writes_nothing
            """,
        ),
        Row(
            "An answer that is lost on its way from the store changes nothing twice",
            """
            storage::test_create_whose_answer_is_lost
            storage::test_lost_update_that_was_written_over
            storage::test_lost_delete
            """,
        ),
    ],
    "Subresources and streams": [
        Row(
            "scale (of custom kinds, too), binding, eviction (429 by budgets), token, finalize, ephemeral containers, "
            "resize",
            """
            registry::TestScale::test_reads_and_writes_replicas
            custom::TestObjects::test_scale
            registry::TestPods::test_are_bound_once
            registry::TestPods::test_are_bound_by_an_object_of_its_own
            registry::TestPods::test_eviction_asks_the_budget
            identity::test_create_token_and_use_it
            kubectl::test_debug_adds_a_container
            resize::test_only_resources_change
            resize::test_a_quota_pays_for_what_a_pod_grows_by
            agent::test_a_running_pod_is_resized_in_place
            """,
        ),
        Row(
            "log, exec, attach, port-forward over websockets and SPDY; proxy to pods, services and nodes",
            """
            streams::test_logs
            streams::test_a_command_over_a_websocket
            streams::test_a_command_over_spdy
            streams::test_ports_over_spdy_inside_a_websocket
            streams::test_ports_over_websocket_channels
            spdy::test_streams_that_nobody_accepts_are_bounded
            proxy::test_method_path_query_and_body_reach_the_pod
            proxy::test_no_node_leads_to_the_master_itself
            kubectl::test_logs_exec_attach_copy_and_forward
            """,
        ),
        Row(
            "Events have two faces and one store, and are forgotten after an hour",
            """
            registry::TestEvents::test_have_two_faces
            registry::TestEvents::test_are_selected_by_what_they_are_about
            registry::TestEvents::test_are_forgotten_by_the_store
            """,
        ),
    ],
    "Who may": [
        Row(
            "Certificates, service-account and bootstrap tokens, impersonation; reviews of oneself, others and tokens",
            """
            authentication::test_client_certificates_over_tls
            authentication::test_may_i
            authentication::test_whose_is_this_token
            identity::test_audiences
            identity::test_bootstrap_tokens
            identity::test_impersonation
            permissions::test_can_i
            permissions::test_nobody_grants_more_than_they_have
            """,
        ),
        Row(
            "Who may not create creates by no other verb; unknown resources are refused before they are not found",
            """
            writes::test_who_may_not_create_creates_by_no_other_verb
            authentication::test_authorization_comes_before_existence
            routes::test_authorization_sees_the_verbs_of_the_real_server
            """,
        ),
        Row(
            "One greedy client cannot starve the others",
            """
            fairness::test_flows_take_turns
            fairness::test_one_level_does_not_touch_another
            """,
        ),
    ],
    "The same over gRPC": [
        Row(
            "Same questions, same answers, same permissions as over REST",
            """
            rest-and-grpc::test_the_same_question_has_the_same_answer
            rest-and-grpc::test_random_changes_come_to_the_same
            rest-and-grpc::test_whatever_is_written_comes_to_the_same
            grpc-targets::test_a_target_lets_one_do_what_its_path_would
            """,
            "tables and streams to containers",
        ),
        Row(
            "The same credentials (certificates, tokens, impersonation, none), refusals and audit events as over REST",
            """
            grpc-access::test_who_is_there_over_grpc_is_who_is_there_over_rest
            grpc-access::test_acting_as_somebody_else
            grpc-access::test_a_call_that_is_given_up_is_told
            grpc-access::test_a_request_over_rest_whose_client_leaves_is_told
            grpc::test_every_credential_that_rest_takes
            """,
            "keys of impersonated extra fields that metadata cannot name",
        ),
        Row(
            "A caller that does not read costs a bounded queue; health, reflection, audit of calls and watches",
            """
            rest-and-grpc::test_a_caller_that_does_not_read_costs_a_bounded_queue
            grpc::test_health_reflection_and_audit
            grpc-access::test_health_is_open_to_all_and_reflection_to_who_may_read_openapi
            grpc-access::test_a_client_that_has_no_stubs_makes_them_by_reflection
            """,
        ),
    ],
}


def named(row: Row) -> list[tuple[str, str]]:
    """Return (path, dotted name) of each test of a row."""
    found = []
    for line in row.tests.split():
        word, _, name = line.partition("::")
        found.append((FILES[word], name))
    return found


@cache
def tests_in(path: str) -> frozenset[str]:
    """Return the names of the tests in a file, as ``Class::function`` or ``function``."""
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(_names(tree.body, ""))


def _names(body: Iterable[ast.stmt], above: str) -> Iterable[str]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _names(node.body, f"{node.name}::")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield above + node.name


_HEAD = """\
# What clients rely on, and what shows it

Made by `python tools/generate_api_machinery.py`; do not edit. Each row is something that real clients of the Kubernetes
API count upon, with the tests that fail when it is not so. [compatibility.md](compatibility.md) says which kinds are
served.

Those under `tests/contract/storage` run upon our store in memory, upon three members of it, and upon three members of
Debian's etcd.
"""


def render() -> str:
    """Return the text of the document."""
    parts = [_HEAD]
    for title, rows in ROWS.items():
        parts.append(f"\n## {title}\n\n| what | shown by | not so |\n| --- | --- | --- |\n")
        parts += [_line(row) for row in rows]
    return "".join(parts)


def _line(row: Row) -> str:
    by_file: dict[str, list[str]] = {}
    for path, name in named(row):
        by_file.setdefault(path, []).append(f"`{name}`")
    shown = "<br>".join(f"[{Path(path).name}](../{path}): {', '.join(names)}" for path, names in by_file.items())
    return f"| {row.what} | {shown} | {row.not_} |\n"


if __name__ == "__main__":
    PATH.write_text(render())
    sys.stdout.write(f"{PATH}\n")
