//! One request to Vault over vaultrs' client, and its answer as bytes that are wiped.

use super::{client, config::VaultConfig, session::Asked, trouble::Trouble};
use archestra_core::{Error, Result, secret::SecretValue};
use rustify::{
    Endpoint,
    enums::{RequestMethod, RequestType, ResponseType},
    errors::ClientError,
};
use serde::{Deserialize, de::DeserializeOwned};
use std::{fmt, io, time::Duration};
use tokio::time::timeout;
use vaultrs::{api::EndpointMiddleware, client::VaultClient};
use zeroize::{Zeroize as _, Zeroizing};

/// The least length of a secret that is looked for in what the server says.
const SHORTEST_HIDDEN: usize = 4;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Verb {
    Get,
    List,
    Post,
    Delete,
}

/// A request. What it sends is not shown.
pub(super) struct Call {
    verb: Verb,
    path: String,
    body: Option<Zeroizing<Vec<u8>>>,
    hidden: Vec<SecretValue>,
    repeatable: bool,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("verb", &self.verb).field("path", &self.path).finish_non_exhaustive()
    }
}

impl Call {
    pub(super) fn new(verb: Verb, path: String) -> Self {
        Self { verb, path, body: None, hidden: Vec::new(), repeatable: !matches!(verb, Verb::Post) }
    }

    /// One that changes nothing, whatever its verb.
    pub(super) fn that_only_asks(self) -> Self {
        Self { repeatable: true, ..self }
    }

    /// Sends `body`, in which `hidden` are; none of them is repeated from what the server says.
    pub(super) fn with(mut self, body: Zeroizing<Vec<u8>>, hidden: impl IntoIterator<Item = SecretValue>) -> Self {
        self.body = Some(body);
        self.hidden = hidden.into_iter().collect();
        self
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// What is asked, and where.
    pub(super) fn asked(&self) -> Asked {
        (self.verb, self.path.clone())
    }

    /// Whether it may be sent twice.
    pub(super) const fn is_repeatable(&self) -> bool {
        self.repeatable
    }
}

impl Endpoint for &Call {
    type Response = serde::de::IgnoredAny;
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        self.path.clone()
    }

    fn method(&self) -> RequestMethod {
        match self.verb {
            Verb::Get => RequestMethod::GET,
            Verb::List => RequestMethod::LIST,
            Verb::Post => RequestMethod::POST,
            Verb::Delete => RequestMethod::DELETE,
        }
    }

    fn body(&self) -> Result<Option<Vec<u8>>, ClientError> {
        Ok(self.body.as_ref().map(|body| body.to_vec()))
    }
}

/// Who sends a request: a token, wiped when dropped.
pub(super) struct Identity(EndpointMiddleware);

impl Drop for Identity {
    fn drop(&mut self) {
        self.0.token.zeroize();
    }
}

/// The connection to a server. Who we are is given with each request.
pub(super) struct Wire {
    client: VaultClient,
    address: String,
    limit: Duration,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("address", &self.address)
            .field("namespace", &self.client.settings.namespace)
            .finish_non_exhaustive()
    }
}

impl Wire {
    /// Prepares connections; makes none.
    pub(super) fn new(config: &VaultConfig) -> Result<Self> {
        config.validate()?;
        // The HTTP client would panic.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(Error::invalid(
                "tls",
                "no TLS provider is installed in this process",
                "call `rustls::crypto::aws_lc_rs::default_provider().install_default()` first",
            ));
        }
        let client = client::new(config)?;
        Ok(Self { client, address: config.address.clone(), limit: config.request_timeout })
    }

    /// What makes a request one of the holder of `token`.
    pub(super) fn identity(&self, token: &str) -> Identity {
        Identity(EndpointMiddleware { token: token.to_owned(), ..self.client.middle.clone() })
    }

    /// How long one request may take.
    pub(super) const fn limit(&self) -> Duration {
        self.limit
    }

    /// Sends a request once.
    pub(super) async fn send(&self, who: &Identity, call: &Call) -> Result<Answer, Trouble> {
        let sent = timeout(self.limit, call.with_middleware(&who.0).exec(&self.client.http)).await;
        match sent {
            Err(_) => Err(Trouble::Slow(self.limit)),
            Ok(Ok(answer)) => Ok(Answer(Zeroizing::new(answer.response.into_body()))),
            Ok(Err(error)) => Err(self.trouble(error, who, call)),
        }
    }

    fn trouble(&self, error: ClientError, who: &Identity, call: &Call) -> Trouble {
        match error {
            ClientError::ServerResponseError { code, content } => {
                let content = Zeroizing::new(content.unwrap_or_default());
                let answer: Option<Refusal> = serde_json::from_str(&content).ok();
                let errors = match answer {
                    // A version that was deleted is answered with its metadata.
                    Some(Refusal { errors: None, data: Some(_) }) if code == 404 => Some(Vec::new()),
                    Some(Refusal { errors, .. }) => errors,
                    None => None,
                };
                let token = SecretValue::new(who.0.token.as_str());
                let hidden = call.hidden.iter().chain([&token]);
                let errors =
                    errors.map(|errors| errors.iter().map(|text| hide(text, hidden.clone())).collect::<Vec<_>>());
                Trouble::of_status(code, errors.as_deref())
            }
            ClientError::RequestError { source, .. } => {
                let chain: Vec<String> = source.chain().map(ToString::to_string).collect();
                let refused = source.chain().any(|cause| {
                    cause
                        .downcast_ref::<io::Error>()
                        .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
                });
                let cause = chain.last().cloned().unwrap_or_default();
                let address = &self.address;
                let unsent =
                    refused || chain.iter().any(|text| text.contains("(Connect)") || text.contains("dns error"));
                if unsent {
                    Trouble::Unreachable(format!("no connection to {address}: {cause}{}", remedy(&chain)))
                } else {
                    Trouble::Broken(format!("the connection to {address} broke: {cause}"))
                }
            }
            ClientError::ResponseError { .. } => {
                Trouble::Broken(format!("the answer of {} came only in part", self.address))
            }
            _ => Trouble::Strange("an answer that cannot be used".to_owned()),
        }
    }
}

fn remedy(chain: &[String]) -> &'static str {
    let told = |part: &str| chain.iter().any(|text| text.contains(part));
    if told("invalid peer certificate") || told("UnknownIssuer") {
        "; name the file of its certificate authority"
    } else if told("InvalidContentType") {
        "; it does not speak TLS, use an http address"
    } else {
        "; see that it runs and that the address is right"
    }
}

fn hide<'a>(text: &str, hidden: impl Iterator<Item = &'a SecretValue>) -> String {
    hidden
        .filter(|value| value.expose().len() >= SHORTEST_HIDDEN)
        .fold(text.to_owned(), |text, value| text.replace(value.expose(), "(hidden)"))
}

#[derive(Deserialize)]
struct Refusal {
    errors: Option<Vec<String>>,
    data: Option<serde::de::IgnoredAny>,
}

/// The body of an answer.
pub(super) struct Answer(Zeroizing<Vec<u8>>);

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer(redacted)")
    }
}

impl Answer {
    /// The `data` in it.
    pub(super) fn data<T: DeserializeOwned>(&self) -> Result<T, Trouble> {
        #[derive(Deserialize)]
        struct Envelope<T> {
            data: T,
        }
        self.read::<Envelope<T>>().map(|envelope| envelope.data)
    }

    /// The whole of it.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Trouble> {
        // What the parser found wrong could hold a part of a value.
        serde_json::from_slice(&self.0)
            .map_err(|_| Trouble::Strange("an answer of another form than Vault's".to_owned()))
    }
}
