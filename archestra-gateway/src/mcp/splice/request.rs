//! The edits that a forwarded request or notification needs, put on top of [`Splice`].

use bytes::Bytes;

use super::super::envelope::{Head, Notification, Params, Request};
use super::super::json::Text;
use super::super::version::{ProtocolVersion, meta};
use super::{Member, Piece, Rest, Splice, SpliceError};

/// What happens to `_meta.progressToken`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenEdit<'e> {
    /// It stays.
    #[default]
    Keep,
    /// It is replaced, or put in.
    Set(Piece<'e>),
    /// It is taken out.
    Remove,
}

/// The protocol fields of a modern request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModernMeta<'e> {
    /// The revision spoken upstream.
    pub version: ProtocolVersion,
    /// JSON text of the capabilities declared upstream.
    pub client_capabilities: &'e str,
    /// JSON text of who we say we are.
    pub client_info: &'e str,
    /// The wanted log level.
    pub log_level: Option<&'e str>,
}

/// What happens to the protocol fields of `_meta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MetaEdit<'e> {
    /// They stay.
    #[default]
    Keep,
    /// All keys with the protocol's prefix are taken out, for a legacy upstream.
    Strip,
    /// They are replaced, or put in, for a modern upstream.
    Modern(ModernMeta<'e>),
}

/// Everything that changes on a request or notification before it is sent on.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestEdits<'e> {
    /// The new id; requests only.
    pub id: Option<Piece<'e>>,
    /// The new `params.name`, or `params.ref.name`.
    pub name: Option<&'e str>,
    /// The new `params.uri`, or `params.ref.uri`.
    pub uri: Option<&'e str>,
    /// The new `params.taskId`.
    pub task_id: Option<&'e str>,
    /// The new `params.cursor`.
    pub cursor: Option<&'e str>,
    /// The new `params.requestState`.
    pub request_state: Option<&'e str>,
    /// The new `params.requestId` of `notifications/cancelled`.
    pub cancelled_id: Option<Piece<'e>>,
    /// The new `params.progressToken` of `notifications/progress`.
    pub reported_token: Option<Piece<'e>>,
    /// The progress token in `_meta`.
    pub progress_token: TokenEdit<'e>,
    /// The protocol fields in `_meta`.
    pub meta: MetaEdit<'e>,
    /// Members put in at the start of `params`; the caller knows that they are not there yet.
    pub params: &'e [Member<'e>],
}

impl<'e> RequestEdits<'e> {
    /// The edited request.
    ///
    /// # Errors
    /// A member to be replaced is absent, or `request` was not parsed from `message`.
    pub fn apply(&self, message: &Bytes, request: &Request<'_>) -> Result<Bytes, SpliceError> {
        let mut splice = Splice::new();
        if let Some(id) = self.id {
            splice.replace(request.id.span(), id);
        }
        self.edit(&mut splice, &request.params, request.head)?;
        splice.apply(message)
    }

    /// The edited notification.
    ///
    /// # Errors
    /// A member to be replaced is absent, or `notification` was not parsed from `message`.
    pub fn apply_to_notification(
        &self,
        message: &Bytes,
        notification: &Notification<'_>,
    ) -> Result<Bytes, SpliceError> {
        let mut splice = Splice::new();
        self.edit(&mut splice, &notification.params, notification.head)?;
        splice.apply(message)
    }

    fn edit(&self, splice: &mut Splice<'e>, params: &Params<'_>, head: Head) -> Result<(), SpliceError> {
        let reference = params.reference.as_ref();
        let name = params.name.as_ref().or_else(|| reference?.name.as_ref());
        let uri = params.uri.as_ref().or_else(|| reference?.uri.as_ref());
        set_text(splice, "name", name, self.name)?;
        set_text(splice, "uri", uri, self.uri)?;
        set_text(splice, "taskId", params.task_id.as_ref(), self.task_id)?;
        set_text(splice, "cursor", params.cursor.as_ref(), self.cursor)?;
        set_text(splice, "requestState", params.request_state.as_ref(), self.request_state)?;
        for (key, present, wanted) in [
            ("requestId", params.request_id, self.cancelled_id),
            ("progressToken", params.progress_token, self.reported_token),
        ] {
            let Some(wanted) = wanted else { continue };
            splice.replace(present.ok_or(SpliceError::Absent { key })?.span(), wanted);
        }
        self.edit_meta(splice, params, head)
    }

    fn edit_meta(&self, splice: &mut Splice<'e>, params: &Params<'_>, head: Head) -> Result<(), SpliceError> {
        let mut slots = [Member { key: "", value: Piece::Raw("") }; 5];
        let members = self.meta_members(&mut slots);
        let Some(present) = &params.meta else {
            self.add_meta(splice, params, head, members);
            return Ok(());
        };
        if self.meta != MetaEdit::Keep || self.progress_token != TokenEdit::Keep {
            splice.edit_members(present.raw, |key| self.is_replaced(key), members)?;
        }
        if let Some(object) = params.raw {
            splice.insert_members(object, self.params);
        }
        Ok(())
    }

    fn meta_members<'s>(&self, slots: &'s mut [Member<'e>; 5]) -> &'s [Member<'e>] {
        let mut count = 0;
        let mut put = |key, value| {
            slots[count] = Member { key, value };
            count += 1;
        };
        if let MetaEdit::Modern(modern) = self.meta {
            put(meta::PROTOCOL_VERSION, Piece::Quoted(modern.version.as_str()));
            put(meta::CLIENT_INFO, Piece::Raw(modern.client_info));
            put(meta::CLIENT_CAPABILITIES, Piece::Raw(modern.client_capabilities));
            if let Some(level) = modern.log_level {
                put(meta::LOG_LEVEL, Piece::Quoted(level));
            }
        }
        if let TokenEdit::Set(token) = self.progress_token {
            put(meta::PROGRESS_TOKEN, token);
        }
        &slots[..count]
    }

    fn is_replaced(&self, key: &str) -> bool {
        if key == meta::PROGRESS_TOKEN {
            return self.progress_token != TokenEdit::Keep;
        }
        match self.meta {
            MetaEdit::Keep => false,
            MetaEdit::Strip => key.starts_with(meta::PREFIX),
            MetaEdit::Modern(_) => {
                [meta::PROTOCOL_VERSION, meta::CLIENT_INFO, meta::CLIENT_CAPABILITIES, meta::LOG_LEVEL].contains(&key)
            }
        }
    }

    /// Puts a `_meta` in where there is none, with a `params` around it where that is missing too.
    fn add_meta(&self, splice: &mut Splice<'e>, params: &Params<'_>, head: Head, members: &[Member<'e>]) {
        if let Some(null) = params.null_meta.filter(|_| !members.is_empty()) {
            splice.replace(null, Piece::Raw("}"));
            splice.insert(null.start, Piece::Raw("{"));
            splice.put_members(null.start, members, Rest::Nothing);
            if let Some(object) = params.raw {
                splice.insert_members(object, self.params);
            }
            return;
        }
        if members.is_empty() && self.params.is_empty() {
            return;
        }
        let (at, closing) = match (params.raw, head.null_params) {
            (Some(object), _) => {
                let closing = if object.is_empty_container() { "" } else { "," };
                (object.span().start + 1, closing)
            }
            (None, Some(null)) => {
                splice.replace(null, Piece::Raw(""));
                splice.insert(null.start, Piece::Raw("{"));
                (null.start, "}")
            }
            (None, None) => {
                splice.insert(head.body, Piece::Raw("\"params\":{"));
                (head.body, "},")
            }
        };
        splice.put_members(at, self.params, Rest::Nothing);
        if !members.is_empty() {
            splice.insert(at, Piece::Raw(if self.params.is_empty() { "\"_meta\":{" } else { ",\"_meta\":{" }));
            splice.put_members(at, members, Rest::Nothing);
            splice.insert(at, Piece::Raw("}"));
        }
        splice.insert(at, Piece::Raw(closing));
    }
}

fn set_text<'e>(
    splice: &mut Splice<'e>,
    key: &'static str,
    present: Option<&Text<'_>>,
    wanted: Option<&'e str>,
) -> Result<(), SpliceError> {
    if let Some(wanted) = wanted {
        let present = present.ok_or(SpliceError::Absent { key })?;
        splice.replace(present.span, Piece::Quoted(wanted));
    }
    Ok(())
}
