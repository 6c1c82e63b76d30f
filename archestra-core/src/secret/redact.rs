//! Secrets taken out of texts: a server may print what it was given, and its words are shown to more people.

use super::SecretValue;

const REDACTED: &str = "<redacted>";
/// Shorter lines of a longer secret, such as a brace, are no secret, and without them no text could be read.
const SHORTEST_LINE: usize = 4;

/// The text without the secrets and without the single lines of those that have several: logs come in lines.
#[must_use]
pub fn redact<'a>(mut text: String, secrets: impl IntoIterator<Item = &'a SecretValue>) -> String {
    let mut hidden: Vec<&str> = Vec::new();
    for secret in secrets.into_iter().filter(|secret| !secret.is_blank()) {
        let whole = secret.expose();
        hidden.push(whole);
        hidden.push(whole.trim());
        if whole.trim().contains('\n') {
            hidden.extend(whole.lines().map(str::trim).filter(|line| line.len() >= SHORTEST_LINE));
        }
    }
    // The longest first, so that none is broken up by another that is a part of it.
    hidden.sort_unstable_by_key(|hidden| std::cmp::Reverse(hidden.len()));
    hidden.dedup();
    for hidden in hidden {
        text = text.replace(hidden, REDACTED);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::redact;
    use crate::secret::SecretValue;

    #[test]
    fn whole_secrets_and_their_lines_are_hidden() {
        let secrets = [SecretValue::new("-----BEGIN-----\n  c2VjcmV0\n}\n"), SecretValue::new("hunter2")];
        let hide = |text: &str| redact(text.to_owned(), &secrets);
        assert_eq!(hide("with hunter2, {}"), "with <redacted>, {}");
        assert_eq!(hide("-----BEGIN----- ⏎   c2VjcmV0 ⏎ }"), "<redacted> ⏎   <redacted> ⏎ }");
        assert_eq!(hide("a -----BEGIN-----\n  c2VjcmV0\n} b"), "a <redacted> b");
    }

    #[test]
    fn a_secret_that_is_part_of_another_does_not_uncover_it() {
        let secrets = [SecretValue::new("abcd"), SecretValue::new("abcdefgh")];
        assert_eq!(redact("abcdefgh abcd".to_owned(), &secrets), "<redacted> <redacted>");
    }
}
