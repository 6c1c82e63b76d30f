//! Tool results that the gateway itself makes: one text and a structured error, marked `isError`.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;

use super::envelope::Id;
use super::json::write_quoted;
use super::version::{Era, meta};

/// The whole response message of a `tools/call` that failed before, or instead of, reaching a server.
///
/// `text` is what a model reads; `detail` is what a program reads, under `_meta["archestra.dev/error"]`.
#[must_use]
pub fn error_response(id: Id<'_>, era: Era, text: &str, detail: &Value) -> Bytes {
    let mut out = BytesMut::with_capacity(192 + text.len());
    out.put_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.put_slice(id.as_str().as_bytes());
    out.put_slice(b",\"result\":");
    write_error_result(&mut out, era, text, detail);
    out.put_u8(b'}');
    out.freeze()
}

/// Appends only the `CallToolResult` of such an answer.
pub fn write_error_result(out: &mut BytesMut, era: Era, text: &str, detail: &Value) {
    out.put_slice(match era {
        Era::Modern => b"{\"resultType\":\"complete\",\"content\":[{\"type\":\"text\",\"text\":".as_slice(),
        Era::Legacy => b"{\"content\":[{\"type\":\"text\",\"text\":".as_slice(),
    });
    write_quoted(out, text);
    out.put_slice(b"}],\"isError\":true,\"_meta\":{");
    write_quoted(out, meta::ARCHESTRA_ERROR);
    out.put_u8(b':');
    out.put_slice(detail.to_string().as_bytes());
    out.put_slice(b"}}");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn either_era_gets_its_shape() {
        let detail = json!({"code": "credentialMissing", "installUrl": "https://gw/install/x"});
        for (era, result_type) in [(Era::Modern, json!("complete")), (Era::Legacy, Value::Null)] {
            let id = Id::parse("7").unwrap();
            let message: Value =
                serde_json::from_slice(&error_response(id, era, "connect \"x\" first\n", &detail)).unwrap();
            assert_eq!(message["id"], json!(7));
            let result = &message["result"];
            assert_eq!(result["resultType"], result_type);
            assert_eq!(result["isError"], json!(true));
            assert_eq!(result["content"], json!([{"type": "text", "text": "connect \"x\" first\n"}]));
            assert_eq!(result["_meta"]["archestra.dev/error"], detail);
            assert!(result.get("structuredContent").is_none());
        }
    }
}
