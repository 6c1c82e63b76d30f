//! Findings about credential models and additional headers.

use super::text::{header_name_finding, header_text_finding};
use crate::{
    Finding, Validate,
    catalog::{
        AdditionalHeader, CredentialModel, FixedValue, StaticField,
        env::{is_env_name, secret_in_plain_field},
    },
};

impl Validate for StaticField {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.name.starts_with('-') || !is_env_name(&self.name.replace('-', "_")) {
            findings.push(Finding::new(
                "name",
                format!("{:?} is not a field name", self.name),
                "start with a letter or '_', then letters, digits, '_' and '-'",
            ));
        }
        findings.extend(header_name_finding("header", &self.header));
        findings.extend(self.prefix.as_deref().and_then(|prefix| header_text_finding("prefix", prefix)));
        if self.prompt && self.value.is_some() {
            findings.push(Finding::new(
                "value",
                "a prompted field cannot have a fixed value",
                "remove `value`, or set `prompt: false`",
            ));
        }
        if !self.prompt && self.value.is_none() {
            findings.push(Finding::new(
                "value",
                "a field that is not prompted needs a value",
                "add `value`, or set `prompt: true`",
            ));
        }
        if !self.secret {
            findings.extend(secret_in_plain_field(self.value.as_ref()));
        }
        let text = self.value.as_ref().and_then(FixedValue::text);
        findings.extend(text.and_then(|text| header_text_finding("value", text)));
        findings
    }
}

impl Validate for AdditionalHeader {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        findings.extend(header_name_finding("name", &self.name));
        findings.extend(self.value.as_deref().and_then(|value| header_text_finding("value", value)));
        match (self.prompt, &self.value) {
            (false, None) => findings.push(Finding::new(
                "value",
                "an additional header needs a value",
                "add `value`, or set `prompt: true`",
            )),
            (true, Some(_)) => findings.push(Finding::new(
                "value",
                "a prompted header cannot have a fixed value",
                "remove `value`, or set `prompt: false`",
            )),
            (true, None) | (false, Some(_)) => {}
        }
        findings
    }
}

impl Validate for CredentialModel {
    fn findings(&self) -> Vec<Finding> {
        let (name, findings) = match self {
            Self::None | Self::JwtPassthrough => return Vec::new(),
            Self::Static(fields) => return static_findings(fields),
            Self::OAuth(config) => ("oauth", config.findings()),
            Self::ClientCredentials(config) => ("clientCredentials", config.findings()),
            Self::Enterprise(config) => ("enterprise", config.findings()),
        };
        findings.into_iter().map(|finding| finding.under(name)).collect()
    }
}

fn static_findings(fields: &[StaticField]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (n, field) in fields.iter().enumerate() {
        let at = format!("static[{n}]");
        let before = &fields[..n];
        findings.extend(field.findings().into_iter().map(|finding| finding.under(&at)));
        if before.iter().any(|other| other.name == field.name) {
            findings.push(Finding::new(
                format!("{at}.name"),
                format!("{} is there twice", field.name),
                "give each field its own name",
            ));
        }
        if before.iter().any(|other| other.header.eq_ignore_ascii_case(&field.header)) {
            findings.push(Finding::new(
                format!("{at}.header"),
                format!("header {} is set twice", field.header),
                "give each field its own header",
            ));
        }
    }
    findings
}
