from uplift.fhir.issues import ISSUES_KEPT, Issue, Report, Severity


def an_issue(severity: Severity = "error") -> Issue:
    return Issue(severity, "structure", "Patient.name[0]", "This must be an object.")


def test_an_issue_is_shaped_like_one_of_an_operation_outcome() -> None:
    assert an_issue().to_json() == {
        "severity": "error",
        "code": "structure",
        "expression": ["Patient.name[0]"],
        "diagnostics": "This must be an object.",
    }


def test_a_report_keeps_fifty_issues_and_counts_all() -> None:
    report = Report.of([(an_issue(), 1)] * 60 + [(an_issue(), 1000)])
    assert len(report.issues) == ISSUES_KEPT == 50
    assert report.to_json()["total"] == report.total == 1060


def test_errors_come_before_warnings() -> None:
    report = Report.of([(an_issue("warning"), 1)] * 60 + [(an_issue("error"), 1)])
    assert [issue.severity for issue in report.issues[:2]] == ["error", "warning"]
    assert not report.valid


def test_warnings_alone_leave_a_report_valid() -> None:
    assert Report.of([(an_issue("warning"), 1)]).valid
    assert not Report.of([(an_issue("fatal"), 1)]).valid
    assert Report.of([]).valid


def test_a_disagreement_is_known_though_its_issue_is_not_kept() -> None:
    disagreement = Issue("warning", "library-disagreement", "Patient", "It is relayed.")
    report = Report.of([(an_issue("warning"), 1)] * 60 + [(disagreement, 1)])
    assert report.library_disagreement
    assert disagreement not in report.issues
