//! Image references, by the grammar that container runtimes use.

/// The longest name a registry keeps.
const MAX_NAME: usize = 255;

/// What is wrong with a reference, in the words that the kubelet uses.
pub(crate) fn check(image: &str) -> Result<(), String> {
    let refused = |why: &str| Err(format!("couldn't parse image reference {image:?}: {why}"));
    if image.is_empty() {
        return Err("Required value: the image is blank".to_owned());
    }
    if image.trim() != image {
        return refused("must not have leading or trailing whitespace");
    }
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return refused("invalid checksum digest format");
    }
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        Some(_) | None => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return refused("invalid reference format");
    }
    let (host, path) = match name.split_once('/') {
        Some((first, path))
            if first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (Some(first), path)
        }
        Some(_) | None => (None, name),
    };
    if host.is_some_and(|host| !is_host(host)) {
        return refused("invalid reference format");
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return refused("invalid reference format: repository name must be lowercase");
    }
    if name.len() > MAX_NAME {
        return refused("repository name must not be more than 255 characters");
    }
    if host.is_none() && path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit()) {
        return refused("cannot specify 64-byte hexadecimal strings");
    }
    if path.split('/').all(is_component) { Ok(()) } else { refused("invalid reference format") }
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut separator = String::new();
    let mut bytes = text.bytes();
    if !bytes.next().is_some_and(alphanumeric) {
        return false;
    }
    for byte in bytes {
        if alphanumeric(byte) {
            let fits = matches!(separator.as_str(), "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-');
            if !fits {
                return false;
            }
            separator.clear();
        } else if matches!(byte, b'.' | b'_' | b'-') {
            separator.push(char::from(byte));
        } else {
            return false;
        }
    }
    separator.is_empty()
}

fn is_tag(text: &str) -> bool {
    let mut bytes = text.bytes();
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128 && bytes.next().is_some_and(word) && bytes.all(|b| word(b) || matches!(b, b'.' | b'-'))
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    let length = match algorithm {
        "sha256" => hex.len() == 64,
        "sha384" => hex.len() == 96,
        "sha512" => hex.len() == 128,
        _ => false,
    };
    length && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            let fits = address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
            return fits && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
        }
        None => text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port))),
    };
    let label = |label: &str| {
        let edge = |c: char| c.is_ascii_alphanumeric();
        label.starts_with(edge) && label.ends_with(edge) && label.chars().all(|c| edge(c) || c == '-')
    };
    name.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn references_that_runtimes_take_are_taken() {
        for image in [
            "node",
            "node:20",
            "library/node:20-alpine",
            "localhost/mcp-node:1",
            "localhost:5000/a/b__c:v1.2_3",
            "registry.example.com:5000/team/server@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "Registry.Example.com/team/server",
            "[fd00::1]:5000/x/y:z",
            "a---b/c.d_e",
        ] {
            assert_eq!(check(image), Ok(()), "{image}");
        }
    }

    #[test]
    fn references_that_runtimes_refuse_are_refused_with_their_reason() {
        for (image, why) in [
            ("", "blank"),
            (" node", "leading or trailing whitespace"),
            ("Node:20", "must be lowercase"),
            ("localhost/Mcp", "must be lowercase"),
            ("node:", "invalid reference format"),
            ("node:-x", "invalid reference format"),
            ("node:a b", "invalid reference format"),
            ("https://registry.example.com/x", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("a/_b", "invalid reference format"),
            ("a..b", "invalid reference format"),
            ("-host.example/x", "invalid reference format"),
            ("node@sha256:abc", "checksum digest"),
            ("node@md5:abc", "checksum digest"),
        ] {
            let reason = check(image).unwrap_err();
            assert!(reason.contains(why), "{image:?}: {reason}");
        }
    }
}
