//! What the server said to a document, for a person: one line for each change, or for each thing to correct.

use super::request::Answer;
use crate::failure::Failure;
use archestra_gateway::admin::{
    ProblemBody, Undone,
    apply::{ApplyAction, ApplyReport},
};
use http::StatusCode;
use std::{fmt::Write as _, io::Write as _};

/// Prints what changed.
///
/// # Errors
/// What the server refused.
pub(super) fn tell(answer: &Answer) -> Result<(), Failure> {
    let text = read(answer)?;
    let _closed = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(())
}

fn read(answer: &Answer) -> Result<String, Failure> {
    if answer.status != StatusCode::OK {
        return Err(Failure::failed(refusal(answer)));
    }
    let report: ApplyReport = serde_json::from_slice(&answer.body).map_err(|_| {
        Failure::failed("the server answered with something else than the report of an apply; is it another version?")
    })?;
    let mut text = String::new();
    for change in &report.changes {
        let word = match (change.action, report.dry_run) {
            (ApplyAction::Unchanged, _) => continue,
            (ApplyAction::Create, false) => "created",
            (ApplyAction::Update, false) => "updated",
            (ApplyAction::Delete, false) => "deleted",
            (ApplyAction::Create, true) => "would create",
            (ApplyAction::Update, true) => "would update",
            (ApplyAction::Delete, true) => "would delete",
        };
        let _never_fails = writeln!(text, "{word} {} {}", change.kind, change.name);
    }
    if text.is_empty() {
        text.push_str("nothing to change\n");
    }
    Ok(text)
}

fn refusal(answer: &Answer) -> String {
    let hint = match answer.status {
        StatusCode::NOT_FOUND => "; is this the URL of an archestra server?",
        _ => "",
    };
    match serde_json::from_slice::<ProblemBody>(&answer.body) {
        Ok(problem) if !problem.findings.is_empty() => {
            let left = match problem.undone {
                Some(Undone::Complete) => ", and nothing was changed",
                Some(Undone::Incomplete) => ", and something of it is left",
                None => "",
            };
            let detail = problem.says_more_than_findings().then_some(&problem.detail);
            let lines = problem.findings.iter().map(ToString::to_string).chain(detail.cloned());
            let lines: Vec<String> = lines.map(|line| format!("\n  {line}")).collect();
            format!("the document was refused{left}:{}", lines.concat())
        }
        Ok(problem) => format!("the server refused: {}{hint}", problem.detail),
        Err(_) => format!("the server answered {}{hint}", answer.status),
    }
}

#[cfg(test)]
mod tests {
    use super::read;
    use crate::apply::request::Answer;
    use http::StatusCode;
    use serde_json::{Value, json};

    fn told(status: StatusCode, body: &Value) -> String {
        read(&Answer { status, body: body.to_string().into() }).unwrap_or_else(|failure| failure.text().to_owned())
    }

    fn problem(detail: &str, findings: &Value) -> Value {
        json!({"type": "urn:archestra:problem:x", "title": "t", "status": 400, "detail": detail, "findings": findings})
    }

    #[test]
    fn each_change_is_a_line() {
        let changes = json!([{"action": "create", "kind": "entry", "name": "a"}, {"action": "unchanged", "kind": "team", "name": "b"}]);
        assert_eq!(told(StatusCode::OK, &json!({"dryRun": false, "changes": changes})), "created entry a\n");
        assert_eq!(told(StatusCode::OK, &json!({"dryRun": true, "changes": changes})), "would create entry a\n");
        assert_eq!(told(StatusCode::OK, &json!({"dryRun": false, "changes": []})), "nothing to change\n");
    }

    #[test]
    fn each_finding_is_a_line_with_its_path() {
        let finding = "entries[0].name: is blank (name it)";
        let findings = json!([{"field": "entries[0].name", "reason": "is blank", "remedy": "name it"}]);
        let mut body = problem(finding, &findings);
        body["undone"] = json!("complete");
        assert_eq!(
            told(StatusCode::UNPROCESSABLE_ENTITY, &body),
            format!("the document was refused, and nothing was changed:\n  {finding}")
        );
    }

    #[test]
    fn what_a_step_left_is_told_beside_its_findings() {
        let findings = json!([{"field": "entry", "reason": "is gone", "remedy": "make it"}]);
        let detail = "create installation a: entry: is gone (make it); undone, but for this: an entry";
        let mut body = problem(detail, &findings);
        let lines = format!("\n  entry: is gone (make it)\n  {detail}");
        assert_eq!(told(StatusCode::UNPROCESSABLE_ENTITY, &body), format!("the document was refused:{lines}"));
        body["undone"] = json!("incomplete");
        assert_eq!(
            told(StatusCode::UNPROCESSABLE_ENTITY, &body),
            format!("the document was refused, and something of it is left:{lines}")
        );
    }

    #[test]
    fn other_refusals_say_what_to_look_at() {
        assert!(
            told(StatusCode::UNAUTHORIZED, &problem("no valid token", &json!([]))).contains("refused: no valid token")
        );
        assert!(told(StatusCode::BAD_GATEWAY, &json!("<html>")).contains("502"));
    }
}
