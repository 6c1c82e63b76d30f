//! `archestra apply`: sends a document to a running server and says what changed.

mod document;
mod outcome;
mod request;

use crate::{environment::Environment, failure::Failure, flags::ApplyFlags};
use archestra_core::secret::SecretValue;
use std::{fs::File, io::Read, path::Path};
use zeroize::Zeroizing;

/// The server that a bare start of `archestra` is.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:9000";
/// The variable that holds the token.
const TOKEN: &str = "ARCHESTRA_TOKEN";
const TOKEN_FILE: &str = "ARCHESTRA_TOKEN_FILE";
const SERVER: &str = "ARCHESTRA_SERVER";
/// Larger than any token.
const MAX_TOKEN: u64 = 16 * 1024;

/// Applies.
///
/// # Errors
/// With exit code 2 when nothing was sent, with 1 when the server refused it or could not be reached.
pub(crate) async fn run(flags: ApplyFlags, environment: &Environment) -> Result<(), Failure> {
    let token = token(flags.token_file.as_deref(), environment)?;
    let document = document::load(&flags.file, environment)?;
    let server = flags.server.as_deref().or(environment.get(SERVER)).unwrap_or(DEFAULT_SERVER);
    let options = request::Options { server, set: flags.set.as_deref(), prune: flags.prune, dry_run: flags.dry_run };
    let answer = request::send(&options, &token, &document).await?;
    outcome::tell(&answer)
}

fn token(file: Option<&Path>, environment: &Environment) -> Result<SecretValue, Failure> {
    let named = file.or_else(|| environment.get(TOKEN_FILE).map(Path::new));
    let text = match (file.is_none().then(|| environment.get(TOKEN)).flatten(), named) {
        (Some(token), _) => Zeroizing::new(token.to_owned()),
        (None, Some(path)) => read_token(path)
            .map_err(|error| Failure::unusable(format!("the token file {}: {error}", path.display())))?,
        (None, None) => {
            return Err(Failure::unusable(format!("no token: set {TOKEN}, or name a file with --token-file")));
        }
    };
    let token = text.trim();
    if token.is_empty() || token.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err(Failure::unusable("the token is not one word of printable characters"));
    }
    Ok(SecretValue::new(token))
}

fn read_token(path: &Path) -> std::io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    File::open(path)?.take(MAX_TOKEN).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::token;
    use crate::environment::Environment;
    use std::path::Path;

    #[test]
    fn the_file_that_a_flag_names_wins_over_variables() {
        let path = std::env::temp_dir().join(format!("archestra-token-{}", std::process::id()));
        std::fs::write(&path, "from-file\n").unwrap();
        let both =
            Environment::from([("ARCHESTRA_TOKEN", "from-variable"), ("ARCHESTRA_TOKEN_FILE", path.to_str().unwrap())]);
        assert_eq!(token(Some(&path), &both).unwrap().expose(), "from-file");
        assert_eq!(token(None, &both).unwrap().expose(), "from-variable");
        assert_eq!(
            token(None, &Environment::from([("ARCHESTRA_TOKEN_FILE", path.to_str().unwrap())])).unwrap().expose(),
            "from-file"
        );
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn no_token_and_no_usable_one_are_refused() {
        assert!(token(None, &Environment::default()).unwrap_err().text().contains("ARCHESTRA_TOKEN"));
        assert!(
            token(Some(Path::new("/does/not/exist")), &Environment::default())
                .unwrap_err()
                .text()
                .contains("/does/not/exist")
        );
        let refused = token(None, &Environment::from([("ARCHESTRA_TOKEN", "two words")])).unwrap_err();
        assert!(!refused.text().contains("two words"));
    }
}
