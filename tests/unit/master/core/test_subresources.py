"""What each subresource of a signing request may change."""

from msgspec.structs import replace

from api.kinds.certificates import CertificateSigningRequest, CertificateSigningRequestCondition
from api.kinds.table import TABLE
from master.subresources import PREPARE

KIND = TABLE.of(CertificateSigningRequest)


def asked(*conditions: str, certificate: str = "", message: str = "") -> CertificateSigningRequest:
    told = tuple(CertificateSigningRequestCondition(type=each, status="True", message=message) for each in conditions)
    bare = CertificateSigningRequest()
    return replace(bare, status=replace(bare.status, conditions=told, certificate=certificate))


def test_approvers_write_conditions_and_no_certificate() -> None:
    old = asked("Seen", certificate="b2xk")
    made = PREPARE["approval"](KIND, old, asked("Checked", "Approved", certificate="bmV3"))
    assert made == asked("Checked", "Approved", certificate="b2xk")


def test_signers_write_all_but_the_decision() -> None:
    old = asked("Seen", "Approved")
    written = PREPARE["status"]
    assert written(KIND, old, asked("Seen", "Approved", "Issued", certificate="bmV3")) == asked(
        "Seen", "Approved", "Issued", certificate="bmV3"
    )
    assert written(KIND, old, asked("Issued")) == asked("Approved", "Issued"), "the decision stays"
    assert written(KIND, asked(), asked("Approved", "Issued")) == asked("Issued"), "nobody approves this way"
    assert written(KIND, asked("Denied"), asked("Denied", message="really?")) == asked("Denied")
