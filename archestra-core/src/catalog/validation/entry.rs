//! Findings about whole entries: what they are called, which server they describe, and what does not go together.

use super::text::url_finding;
use crate::{
    Finding, Validate,
    catalog::{CredentialModel, EntrySpec, Injection, Server, ToolConcurrency, Transport},
};

const MAX_ICON: usize = 64 * 1024;

/// A field that installations are asked for, and where in the entry it is.
struct Asked<'a> {
    list: &'static str,
    path: String,
    name: &'a str,
}

impl Validate for EntrySpec {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        findings.extend(self.name_finding());
        for (field, value) in [("docsUrl", &self.docs_url), ("repository", &self.repository)] {
            findings.extend(value.as_deref().and_then(|url| url_finding(field, url)));
        }
        findings.extend(self.icon.as_deref().and_then(icon_finding));
        match (&self.remote, &self.self_hosted) {
            (Some(remote), None) => findings.extend(url_finding("remote.url", &remote.url)),
            (None, Some(hosted)) => {
                findings.extend(hosted.findings().into_iter().map(|finding| finding.under("selfHosted")));
            }
            (None, None) => findings.push(Finding::new(
                "remote",
                "neither a remote nor a self-hosted server",
                "add `remote: {url: …}` or `selfHosted: {…}`",
            )),
            (Some(_), Some(_)) => findings.push(Finding::new(
                "remote",
                "both a remote and a self-hosted server",
                "keep one of `remote` and `selfHosted`",
            )),
        }
        findings.extend(self.credential.findings().into_iter().map(|finding| finding.under("credential")));
        findings.extend(self.header_findings());
        findings.extend(self.field_findings());
        findings.extend(self.transport_findings());
        findings.extend(self.sharing_findings());
        if self.call_timeout == Some(0) {
            findings.push(Finding::new(
                "callTimeout",
                "a call cannot take no time",
                "use seconds from 1, or leave it out",
            ));
        }
        findings.extend(self.labels.findings().into_iter().map(|finding| finding.under("labels")));
        findings
    }
}

impl EntrySpec {
    fn name_finding(&self) -> Option<Finding> {
        let name = self.name.trim();
        if name.is_empty()
            || name.len() != self.name.len()
            || name.chars().count() > 128
            || name.chars().any(char::is_control)
        {
            return Some(Finding::new(
                "name",
                "an entry needs a name of 1 to 128 printable characters without blanks around it",
                "choose another name",
            ));
        }
        crate::tool::slug(name).is_empty().then(|| {
            Finding::new(
                "name",
                format!("{name:?} holds nothing that a tool name can be made of"),
                "use at least one letter or digit",
            )
        })
    }

    fn header_findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (n, header) in self.additional_headers.iter().enumerate() {
            let at = format!("additionalHeaders[{n}]");
            findings.extend(header.findings().into_iter().map(|finding| finding.under(&at)));
            let same = |name: &str| name.eq_ignore_ascii_case(&header.name);
            if self.additional_headers[..n].iter().any(|other| same(&other.name)) {
                findings.push(Finding::new(
                    format!("{at}.name"),
                    format!("header {} is set twice", header.name),
                    "keep one",
                ));
            } else if credential_headers(&self.credential).any(same) {
                findings.push(Finding::new(
                    format!("{at}.name"),
                    format!("header {} carries the credential", header.name),
                    "remove it here, or change `credential`",
                ));
            }
        }
        findings
    }

    /// Values of an installation are told apart by name alone, wherever the entry asks for them.
    fn field_findings(&self) -> Vec<Finding> {
        let asked = self.asked();
        let doubled = asked.iter().enumerate().filter(|(n, one)| {
            // Doubled names within one list are found where the list is.
            asked[..*n].iter().any(|other| other.name == one.name && other.list != one.list)
        });
        doubled
            .map(|(_, one)| {
                Finding::new(
                    one.path.clone(),
                    format!("an installation is asked for {} already", one.name),
                    "give it another name, so that each field has its own value",
                )
            })
            .collect()
    }

    fn asked(&self) -> Vec<Asked<'_>> {
        let mut asked = Vec::new();
        let env = self.self_hosted.iter().flat_map(|hosted| hosted.env.iter().enumerate());
        asked.extend(env.filter(|(_, var)| var.prompt).map(|(n, var)| Asked {
            list: "env",
            path: format!("selfHosted.env[{n}].name"),
            name: &var.name,
        }));
        match &self.credential {
            CredentialModel::Static(fields) => {
                let prompted = fields.iter().enumerate().filter(|(_, field)| field.prompt);
                asked.extend(prompted.map(|(n, field)| Asked {
                    list: "credential",
                    path: format!("credential.static[{n}].name"),
                    name: &field.name,
                }));
            }
            CredentialModel::ClientCredentials(config) => {
                asked.extend(config.asked().map(|name| Asked {
                    list: "credential",
                    path: format!("credential.clientCredentials.{name}"),
                    name,
                }));
            }
            CredentialModel::None
            | CredentialModel::OAuth(_)
            | CredentialModel::Enterprise(_)
            | CredentialModel::JwtPassthrough => {}
        }
        let headers = self.additional_headers.iter().enumerate().filter(|(_, header)| header.prompt);
        asked.extend(headers.map(|(n, header)| Asked {
            list: "additionalHeaders",
            path: format!("additionalHeaders[{n}].name"),
            name: &header.name,
        }));
        asked
    }

    fn transport_findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let Some(server) = self.server() else { return findings };
        if !self.speaks_http() {
            let by_headers = match &self.credential {
                CredentialModel::None => false,
                CredentialModel::OAuth(config) => config.access_token_env.is_none(),
                CredentialModel::Static(_)
                | CredentialModel::Enterprise(_)
                | CredentialModel::ClientCredentials(_)
                | CredentialModel::JwtPassthrough => true,
            };
            if by_headers {
                findings.push(Finding::new(
                    "credential",
                    "a stdio server receives no headers",
                    "give it the credential in its environment, or use `transport: streamable-http`",
                ));
            }
            if !self.additional_headers.is_empty() {
                findings.push(Finding::new(
                    "additionalHeaders",
                    "a stdio server receives no headers",
                    "remove them, or use `transport: streamable-http`",
                ));
            }
        } else if self.tool_concurrency == ToolConcurrency::Exclusive {
            findings.push(Finding::new(
                "toolConcurrency",
                "only a stdio server can be given to one session at a time",
                "remove it, or use `transport: stdio`",
            ));
        }
        if let CredentialModel::OAuth(config) = &self.credential
            && let Some(name) = &config.access_token_env
        {
            let reason = match server {
                Server::Remote(_) => "the platform sets no environment for a remote server".to_owned(),
                Server::SelfHosted(hosted) if hosted.env.iter().any(|var| var.name == *name) => {
                    format!("{name} is in `env` already")
                }
                Server::SelfHosted(_) => return findings,
            };
            findings.push(Finding::new("credential.oauth.accessTokenEnv", reason, "remove one of the two"));
        }
        findings
    }

    fn sharing_findings(&self) -> Vec<Finding> {
        if !self.shared_deployment {
            return Vec::new();
        }
        let hosted = match &self.self_hosted {
            Some(hosted) if hosted.transport == Transport::StreamableHttp => hosted,
            _ => {
                return vec![Finding::new(
                    "sharedDeployment",
                    "only a self-hosted streamable-http server can be shared",
                    "remove it",
                )];
            }
        };
        let prompted = hosted.env.iter().filter(|var| var.prompt).map(|var| var.name.as_str());
        let token = match &self.credential {
            CredentialModel::OAuth(config) => config.access_token_env.as_deref(),
            _ => None,
        };
        prompted
            .chain(token)
            .map(|name| {
                Finding::new(
                    "sharedDeployment",
                    format!("{name} differs per installation, which a shared process cannot honour"),
                    "fix its value in the entry, or remove `sharedDeployment`",
                )
            })
            .collect()
    }
}

/// The headers that a credential of this model goes in.
fn credential_headers(model: &CredentialModel) -> Box<dyn Iterator<Item = &str> + '_> {
    match model {
        CredentialModel::None => Box::new(std::iter::empty()),
        CredentialModel::Static(fields) => Box::new(fields.iter().map(|field| field.header.as_str())),
        CredentialModel::Enterprise(config) => Box::new(std::iter::once(match &config.injection {
            Injection::Header(name) => name.as_str(),
            Injection::Bearer | Injection::Raw => "authorization",
        })),
        CredentialModel::OAuth(_) | CredentialModel::ClientCredentials(_) | CredentialModel::JwtPassthrough => {
            Box::new(std::iter::once("authorization"))
        }
    }
}

fn icon_finding(icon: &str) -> Option<Finding> {
    let remedy = "use an emoji, or a URL that begins with `https://` or `data:image/`";
    if icon.len() > MAX_ICON {
        return Some(Finding::new("icon", "the icon is larger than 64 KiB", "use a smaller one, or its URL"));
    }
    if icon.starts_with("https://") {
        return url_finding("icon", icon).map(|finding| Finding { remedy: remedy.to_owned(), ..finding });
    }
    // Several code points make one emoji; none of them is a letter, a digit alone or markup.
    let emoji = !icon.is_empty()
        && icon.chars().count() <= 16
        && !icon.is_ascii()
        && !icon.chars().any(|c| c.is_control() || c.is_alphabetic() || matches!(c, '<' | '>' | ':' | '"' | '\''));
    let image = icon.starts_with("data:image/") && !icon.chars().any(|c| c.is_whitespace() || c.is_control());
    (!emoji && !image).then(|| Finding::new("icon", "neither an emoji nor the URL of an image", remedy))
}
