//! What came although text or JSON should have come: a page, an archive, nothing.

/// What the first bytes of a file or an answer are, if not text that a program or person meant; `None` when they may be.
#[must_use]
pub fn unlike_text(head: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(&head[..head.len().min(4096)]);
    let words = text.trim_start_matches('\u{feff}').trim_start();
    let begins = |with: &str| words.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
    if head.is_empty() {
        return Some("empty".to_owned());
    }
    if head.starts_with(b"\x1f\x8b") {
        return Some("gzip, not text: gunzip it first".to_owned());
    }
    if head.starts_with(b"PK\x03\x04") {
        return Some("a zip, not text: give it as a file of its own".to_owned());
    }
    if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") || looks_like_utf16(head) {
        return Some("UTF-16, not UTF-8: iconv -f UTF-16 -t UTF-8".to_owned());
    }
    if words.is_empty() {
        return Some("blanks alone".to_owned());
    }
    if begins("<!doctype html") || begins("<html") {
        let title = words.split_once("<title>").and_then(|(_, rest)| rest.split("</title>").next());
        return Some(format!("an HTML page{}, not a log", shown(title)));
    }
    if begins("<?xml") {
        return Some("an XML answer, not a log".to_owned());
    }
    let answer = serde_json::from_str::<serde_json::Value>(words).ok();
    let message = answer.as_ref().and_then(|answer| answer.get("message")?.as_str());
    message.map(|message| format!("an answer of the API{}, not a log", shown(Some(message))))
}

fn shown(text: Option<&str>) -> String {
    text.map_or_else(String::new, |text| format!(" ({:?})", text.trim().chars().take(80).collect::<String>()))
}

/// Every second byte of the head is zero.
fn looks_like_utf16(head: &[u8]) -> bool {
    let pairs = &head[..head.len().min(64) & !1];
    let zeros = |at: usize| pairs.iter().skip(at).step_by(2).filter(|byte| **byte == 0).count();
    pairs.len() >= 8 && (zeros(0) * 4 >= pairs.len() / 2 * 3 || zeros(1) * 4 >= pairs.len() / 2 * 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_log_is_called_what_it_is() {
        let utf16: Vec<u8> = "2026-01-01T00:00:00Z a".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (bytes, word) in [
            (&b""[..], "empty"),
            (b" \r\n\n", "blanks"),
            (b"\x1f\x8b\x08\x00", "gzip"),
            (b"\xff\xfea\0b\0", "UTF-16"),
            (&utf16, "UTF-16"),
            (b"\xef\xbb\xbf\n<!DOCTYPE HTML><title>Sign in</title>", "an HTML page (\"Sign in\")"),
            (b"<HTML><body>", "an HTML page"),
            (b"{\"message\": \"Not Found\"}", "Not Found"),
        ] {
            let found = unlike_text(bytes).unwrap_or_default();
            assert!(found.contains(word), "{word}: {found:?}");
        }
        for text in ["2026-01-01T00:00:00Z <html>", "{\"a\": 1}", "x"] {
            assert_eq!(unlike_text(text.as_bytes()), None, "{text}");
        }
    }
}
