//! YAML on its way in: one document, as a JSON value, with errors that name line and column and repeat nothing.

use serde_json::Value;

/// Reads one document.
///
/// # Errors
/// Where and why it is not YAML.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let at =
            error.location().map(|at| format!(" at line {}, column {}", at.line(), at.column())).unwrap_or_default();
        let reason = error.without_snippet().to_string();
        let reason = reason.lines().next().unwrap_or_default();
        let reason = reason.strip_suffix(&at).unwrap_or(reason);
        format!("not YAML{at}: {reason}")
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn errors_name_line_and_column() {
        for (text, place) in [("a: [1, 2", "line 1"), ("a: 1\nb: {c: d\ne: f", "line 3"), ("a: 1\na: 2\n", "line 2")] {
            let error = parse(text).unwrap_err();
            assert!(
                error.starts_with("not YAML at line ") && error.contains(place) && error.contains("column"),
                "{error}"
            );
        }
    }
}
