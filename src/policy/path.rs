//! Whether a path that a caller names lies inside a folder, on disk and not only by its text.

use super::definition::Decoding;
use super::name::nfkc;
use icu_normalizer::DecomposingNormalizerBorrowed;
use std::borrow::Cow;
use std::path::{Component, Path, PathBuf};

/// Longest path that is looked at, in bytes; the kernel takes none that is longer.
const LONGEST: usize = 4095;

/// Absolute, and made of plain names only.
pub(super) fn is_plain_absolute(path: &Path) -> bool {
    path.is_absolute() && !path.components().any(|part| matches!(part, Component::ParentDir))
}

/// Checks that `text` names something inside one of `roots` after all symbolic links are followed.
///
/// A server may read more into a string than a path: a home folder (`~`), surrounding blanks or quotes that it
/// strips, a folder of its own for relative paths. Whatever another reader could take for another path is refused.
/// A link that changes after this check is not seen here; the kernel's record shows what was opened.
///
/// `decoding` says how the server reads the text; where it does not, what could be read in two ways is refused.
///
/// Gives back why it is refused, as a clause.
pub(super) fn inside(text: &str, roots: &[PathBuf], decoding: Option<Decoding>) -> Result<(), String> {
    let text = &*match decoding {
        None => {
            if let Some(why) = ambiguous(text) {
                return Err(format!("{why}; say in `decoding` how the server reads it"));
            }
            Cow::Borrowed(text)
        }
        Some(Decoding::None) => Cow::Borrowed(text),
        Some(Decoding::Percent) => Cow::Owned(percent_decoded(text)?),
        Some(Decoding::Uri) => match file_uri(text) {
            Some(rest) => Cow::Owned(percent_decoded(rest)?),
            None => Cow::Borrowed(text),
        },
    };
    let path = Path::new(text);
    if text.len() > LONGEST {
        return Err(format!("is {} bytes long, more than the {LONGEST} that a path can have", text.len()));
    }
    if !path.is_absolute() {
        return Err("is not absolute, so the server decides what it means".to_owned());
    }
    let doubtful = |c: char| c.is_control() || matches!(c, '\\' | '"' | '\'' | '\u{2028}' | '\u{2029}');
    if text.contains(doubtful) || text.trim() != text {
        return Err("has blanks around it, quotes, backslashes or control characters".to_owned());
    }
    if path.components().any(|part| matches!(part, Component::ParentDir)) {
        return Err("has a `..`".to_owned());
    }
    // `/proc/self` and `/dev/fd` are other files for the server than for this process.
    if path.starts_with("/proc") || path.starts_with("/dev") {
        return Err("lies in /proc or /dev, which differ between processes".to_owned());
    }
    let real = follow(path)?;
    for root in roots {
        // A root that isn't there has nothing inside it.
        if std::fs::canonicalize(root).is_ok_and(|root| real.starts_with(root)) {
            return Ok(());
        }
    }
    let folders: Vec<String> = roots.iter().map(|root| root.display().to_string()).collect();
    Err(format!("lies outside {}", folders.join(", ")))
}

/// Why a server could take the text for another path than its bytes say.
fn ambiguous(text: &str) -> Option<&'static str> {
    if file_uri(text).is_some() {
        return Some("is a `file:` URI");
    }
    if text.contains('%') {
        return Some("has a percent sign, which a server may decode");
    }
    if text.contains('$') {
        return Some("has a dollar sign, which a server may expand");
    }
    if text.contains(['*', '?', '[', ']', '{', '}']) {
        return Some("has a wildcard, which a server may expand");
    }
    if text.split('/').any(|name| name.starts_with('~')) {
        return Some("has a name that begins with `~`, which a server may expand");
    }
    // Composed, decomposed, full-width: a server, or the file system, may take one for the other.
    let decomposed = DecomposingNormalizerBorrowed::new_nfd().normalize(text);
    if nfkc(text) != text || decomposed != text {
        return Some("has letters that have another form (Unicode normalisation)");
    }
    None
}

/// What follows the scheme and the host of a `file:` URI.
fn file_uri(text: &str) -> Option<&str> {
    let scheme = text.get(..5)?;
    let rest = scheme.eq_ignore_ascii_case("file:").then(|| &text[5..])?;
    Some(match rest.strip_prefix("//") {
        Some(hosted) => hosted.strip_prefix("localhost").unwrap_or(hosted),
        None => rest,
    })
}

fn percent_decoded(text: &str) -> Result<String, String> {
    let bytes: Vec<u8> = percent_encoding::percent_decode_str(text).collect();
    let decoded = String::from_utf8(bytes).map_err(|_| "does not decode to UTF-8".to_owned())?;
    if decoded.contains('%') || decoded.contains('\0') {
        return Err("still has a percent sign, or a NUL byte, after it was decoded once".to_owned());
    }
    Ok(decoded)
}

/// The real path of `path`, of which the last parts need not exist yet.
fn follow(path: &Path) -> Result<PathBuf, String> {
    for known in path.ancestors() {
        match std::fs::canonicalize(known) {
            Ok(real) => {
                let rest = path.strip_prefix(known).unwrap_or(Path::new(""));
                return Ok(if rest.as_os_str().is_empty() { real } else { real.join(rest) });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if known.symlink_metadata().is_ok() {
                    return Err("runs through a symbolic link that leads nowhere".to_owned());
                }
            }
            Err(error) => return Err(format!("can't be resolved: {error}")),
        }
    }
    Err("can't be resolved".to_owned())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_what_really_lies_inside_is_inside() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        let root = base.join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::create_dir(base.join("root2")).unwrap();
        std::fs::write(root.join("a"), "").unwrap();
        std::fs::write(base.join("root2/secret"), "").unwrap();
        symlink(base.join("root2"), root.join("out")).unwrap();
        symlink(root.join("sub"), root.join("in")).unwrap();
        symlink(base.join("nowhere"), root.join("dangling")).unwrap();
        symlink(root.join("loop"), root.join("loop")).unwrap();
        symlink(&root, base.join("alias")).unwrap();
        let base = base.to_str().unwrap();
        let roots = [root.clone()];
        for good in ["root", "root/", "root/a", "root/in/new/file", "alias/a", "root/./a", "root//a"] {
            assert_eq!(inside(&format!("{base}/{good}"), &roots, None), Ok(()), "{good}");
        }
        for bad in [
            "root2/secret",
            "root/../root2/secret",
            "root/sub/../a",
            "root/out/secret",
            "root/out/new",
            "root/dangling",
            "root/dangling/x",
            "root/loop",
            "root/a/x",
            "root/a ",
            "root/'a'",
            "root/a\\b",
            "root/a\n",
            "",
        ] {
            assert!(inside(&format!("{base}/{bad}"), &roots, None).is_err(), "{bad}");
        }
        for bad in
            ["/proc/self/cwd/a", "/dev/fd/0", "", "a", "~/a", "./a", "file:///a", " /a", "\"/a\"", "\0"]
        {
            assert!(inside(bad, &[PathBuf::from("/")], None).is_err(), "{bad}");
        }
        assert!(inside(&format!("/{}", "a".repeat(5000)), &[PathBuf::from("/")], None).is_err());
        assert!(inside("/etc/hostname", &[PathBuf::from("/not/there")], None).is_err());
    }

    #[test]
    fn text_that_a_server_could_read_otherwise_is_refused_unless_it_is_said_how_it_reads() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        let root = base.join("ok");
        std::fs::create_dir_all(root.join("a")).unwrap();
        let (roots, base) = ([root], base.to_str().unwrap());
        let at = |text: &str, decoding| inside(&text.replace("BASE", base), &roots, decoding);
        for text in [
            "BASE/ok/%2e%2e/secret",
            "BASE/ok/..%2fsecret",
            "BASE/ok/%252e%252e/secret",
            "BASE/ok/\u{ff0e}\u{ff0e}/secret",
            "BASE/ok\u{ff0f}..\u{ff0f}secret",
            "BASE/ok/\u{2025}/secret",
            "BASE/ok/$UP/secret",
            "BASE/ok/${UP}/secret",
            "BASE/ok/*/a",
            "BASE/ok/{a,../secret}",
            "BASE/ok/[a]",
            "BASE/ok/a?",
            "BASE/ok/~/a",
            "BASE/ok/caf\u{e9}",
            "BASE/ok/cafe\u{301}",
            "file://BASE/ok/a",
            "FILE:BASE/ok/a",
        ] {
            let why = at(text, None).unwrap_err();
            assert!(why.contains("decoding"), "{text}: {why}");
        }
        let (none, percent, uri) = (Some(Decoding::None), Some(Decoding::Percent), Some(Decoding::Uri));
        for (text, decoding) in [
            ("BASE/ok/100%", none),
            ("BASE/ok/$UP", none),
            ("BASE/ok/caf\u{e9}", none),
            ("BASE/ok/%61", percent),
            ("BASE/ok/a%20b", percent),
            ("file://BASE/ok/a", uri),
            ("file://localhost/BASE/ok/%61", uri),
            ("BASE/ok/a", uri),
        ] {
            assert_eq!(at(text, decoding), Ok(()), "{text} {decoding:?}");
        }
        for (text, decoding) in [
            ("BASE/ok/..%2fsecret", percent),
            ("BASE/ok/%2e%2e/secret", percent),
            ("BASE/ok/%252e%252e/secret", percent),
            ("BASE/ok/%ff", percent),
            ("BASE/ok/%00", percent),
            ("file://BASE/ok/%2e%2e/secret", uri),
            ("file://elsewhere/BASE/ok/a", uri),
            ("file://BASE/secret", uri),
            ("BASE/secret", none),
        ] {
            assert!(at(text, decoding).is_err(), "{text} {decoding:?}");
        }
    }

    #[test]
    fn a_root_that_is_a_link_means_what_it_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        std::fs::create_dir(base.join("real")).unwrap();
        symlink(base.join("real"), base.join("link")).unwrap();
        let text = base.join("link/new");
        assert_eq!(inside(text.to_str().unwrap(), &[base.join("link")], None), Ok(()));
        assert_eq!(inside(text.to_str().unwrap(), &[base.join("real")], None), Ok(()));
    }
}
