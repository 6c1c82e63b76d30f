//! Keeping Kubernetes from expanding `$(NAME)` in values that must arrive byte for byte.

/// What Kubernetes makes the given text of: every `$` doubled.
///
/// Doubling only what looks like a reference would not do: `$$` is always taken for one, and a `$` before a letter outside
/// ASCII garbles it.
pub(crate) fn escape(text: &str) -> String {
    text.replace('$', "$$")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `Expand` of Kubernetes' `third_party/forked/golang/expansion`, on bytes, with no variable set: it copies what it
    /// cannot resolve, and of a byte that follows a `$` and begins no expression it makes a character.
    fn expand(input: &str) -> String {
        let bytes = input.as_bytes();
        let mut out = Vec::new();
        let mut cursor = 0;
        while cursor < bytes.len() {
            if bytes[cursor] != b'$' || cursor + 1 == bytes.len() {
                out.push(bytes[cursor]);
                cursor += 1;
                continue;
            }
            let rest = &bytes[cursor + 1..];
            let advance = match rest[0] {
                b'$' => {
                    out.push(b'$');
                    1
                }
                b'(' => match rest.iter().position(|byte| *byte == b')') {
                    Some(end) => {
                        out.extend_from_slice(b"<expanded>");
                        end + 1
                    }
                    None => {
                        out.extend_from_slice(b"$(");
                        1
                    }
                },
                other => {
                    out.push(b'$');
                    out.extend_from_slice(char::from(other).to_string().as_bytes());
                    1
                }
            };
            cursor += 1 + advance;
        }
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn unescaped_text_would_change() {
        for text in ["$(HOME)", "a$$b", "$é"] {
            assert_ne!(expand(text), text);
        }
    }

    proptest! {
        #[test]
        fn escaped_text_arrives_as_it_was(text in prop_oneof!["[$()a-zé]{0,20}", any::<String>()]) {
            prop_assert_eq!(expand(&escape(&text)), text);
        }
    }
}
