//! Environment variables of a self-hosted server: plain, boolean, number and secret; fixed, prompted or mounted as a file.

use super::value::{FixedValue, Scalar, Secrecy, WireValue};
use crate::{Finding, Validate};
use serde::{Deserialize, Serialize};

/// What a value must look like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum FieldType {
    /// Any text.
    #[default]
    String,
    /// A decimal number.
    Number,
    /// `true` or `false`.
    Boolean,
}

impl FieldType {
    /// Whether `text` is a value of this type.
    #[must_use]
    pub fn accepts(self, text: &str) -> bool {
        match self {
            Self::String => true,
            Self::Number => text.trim().parse::<f64>().is_ok_and(f64::is_finite),
            Self::Boolean => matches!(text, "true" | "false"),
        }
    }

    /// The type's name, as a person would say it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::String => "text",
            Self::Number => "a number",
            Self::Boolean => "true or false",
        }
    }
}

/// One environment variable of a self-hosted server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", from = "Wire")]
pub struct EnvVar {
    /// The name in the process's environment: `[A-Za-z_][A-Za-z0-9_]*`.
    pub name: String,
    /// What its value looks like.
    #[serde(rename = "type", default)]
    pub field_type: FieldType,
    /// Whether the value is kept in the secret store and never shown.
    #[serde(default)]
    pub secret: bool,
    /// Whether each installation gives its own value.
    #[serde(default)]
    pub prompt: bool,
    /// Whether an installation must give one.
    #[serde(default)]
    pub required: bool,
    /// The value of every installation, unless it is prompted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<FixedValue>,
    /// What a prompt is filled with, and what holds when nothing is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// What to enter, for whoever installs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether the value is a read-only file `/secrets/<NAME>` and not in the environment. Secrets only.
    #[serde(default)]
    pub mount: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "they are the field's own flags")]
struct Wire {
    name: String,
    #[serde(rename = "type", default)]
    field_type: FieldType,
    #[serde(default)]
    secret: bool,
    #[serde(default)]
    prompt: bool,
    #[serde(default)]
    required: bool,
    value: Option<WireValue>,
    default: Option<Scalar>,
    description: Option<String>,
    #[serde(default)]
    mount: bool,
}

impl From<Wire> for EnvVar {
    fn from(wire: Wire) -> Self {
        let secrecy = Secrecy::of(wire.secret);
        Self {
            name: wire.name,
            field_type: wire.field_type,
            secret: wire.secret,
            prompt: wire.prompt,
            required: wire.required,
            value: wire.value.map(|value| value.into_fixed(secrecy)),
            default: wire.default.map(|Scalar(value)| value.expose().to_owned()),
            description: wire.description,
            mount: wire.mount,
        }
    }
}

impl Validate for EnvVar {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if !is_env_name(&self.name) {
            findings.push(Finding::new(
                "name",
                format!("{:?} is not the name of an environment variable", self.name),
                "start with a letter or '_', then letters, digits and '_'",
            ));
        }
        if self.prompt && self.value.is_some() {
            findings.push(Finding::new(
                "value",
                "a prompted variable cannot have a fixed value",
                "remove `value`, use `default`, or set `prompt: false`",
            ));
        }
        if !self.prompt && self.required && self.value.is_none() && self.default.is_none() {
            findings.push(Finding::new(
                "value",
                "a required variable that is not prompted needs a value",
                "add `value`, or set `prompt: true`",
            ));
        }
        if self.mount && !self.secret {
            findings.push(Finding::new(
                "mount",
                "only secrets are mounted as files",
                "set `secret: true`, or remove `mount`",
            ));
        }
        if self.secret && self.default.is_some() {
            findings.push(Finding::new(
                "default",
                "a secret cannot have a default that everybody sees",
                "remove `default`, or store it as `value`",
            ));
        }
        if !self.secret {
            findings.extend(secret_in_plain_field(self.value.as_ref()));
        }
        for (field, text) in
            [("value", self.value.as_ref().and_then(FixedValue::text)), ("default", self.default.as_deref())]
        {
            let Some(text) = text else { continue };
            if !self.field_type.accepts(text) {
                let what = if self.secret { "the value".to_owned() } else { format!("{text:?}") };
                findings.push(Finding::new(
                    field,
                    format!("{what} is not {}", self.field_type.label()),
                    "change the value or the type",
                ));
            }
            if text.contains('\0') {
                findings.push(Finding::new(field, "an environment cannot hold a NUL byte", "remove it"));
            }
        }
        findings
    }
}

/// Whether this can name an environment variable everywhere: `[A-Za-z_][A-Za-z0-9_]*`, at most 256 bytes.
pub(crate) fn is_env_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= 256
        && bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The finding about a secret value in a field that everybody may see.
pub(crate) fn secret_in_plain_field(value: Option<&FixedValue>) -> Option<Finding> {
    matches!(value, Some(FixedValue::Secret(_) | FixedValue::Stored)).then(|| {
        Finding::new("value", "a secret cannot become a plain value", "enter the value again, or set `secret: true`")
    })
}
