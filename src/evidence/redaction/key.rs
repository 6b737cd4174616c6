//! The key that makes placeholders comparable without giving the secret away.

use super::hmac8;
use crate::error::{Code, Error, Result};
use crate::host::rights::Rights;
use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use std::path::{Path, PathBuf};

/// Begins a key file.
const PREFIX: &str = "assay-redaction-key-v1:";
/// Names the file; it must already exist then.
const VARIABLE: &str = "ASSAY_REDACTION_KEY_FILE";
/// The host's own key, generated once.
const HOST_FILE: &str = "/var/lib/assay/redaction.key";

/// The key of one host (or of one invocation). Its text never leaves it.
#[derive(Clone)]
pub struct RedactionKey {
    bytes: [u8; 32],
    scope: &'static str,
}

impl std::fmt::Debug for RedactionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RedactionKey({})", self.id())
    }
}

impl RedactionKey {
    /// Finds the host's key, or generates it once. Call it before a run starts: without a key nothing may be written.
    ///
    /// Looks at `ASSAY_REDACTION_KEY_FILE`, which must exist; then `/var/lib/assay/redaction.key`; then
    /// `$XDG_DATA_HOME/assay/redaction.key` or `~/.local/share/assay/redaction.key`.
    ///
    /// # Errors
    /// `RedactionKey` when the file named doesn't exist, isn't a key, is readable by others, or none can be made.
    pub fn discover() -> Result<Self> {
        Self::discover_in(|name| std::env::var_os(name).map(PathBuf::from), Path::new(HOST_FILE))
    }

    /// As [`Self::discover`]; the file that a variable names is read with the rights of whoever called.
    ///
    /// # Errors
    /// As [`Self::discover`].
    pub fn of_caller() -> Result<Self> {
        match std::env::var_os(VARIABLE) {
            Some(_) => Rights::of_caller()?.act(Self::discover),
            None => Self::discover(),
        }
    }

    /// As [`Self::discover`], with the environment and the host's file as arguments.
    ///
    /// # Errors
    /// As [`Self::discover`].
    pub fn discover_in(variable: impl Fn(&str) -> Option<PathBuf>, host_file: &Path) -> Result<Self> {
        let set = |name: &str| variable(name).filter(|value| !value.as_os_str().is_empty());
        if let Some(path) = set(VARIABLE) {
            return Self::read(&path)?.ok_or_else(|| {
                wrong(&path, format!("expected a redaction key, named by {VARIABLE}, found no file"))
                    .hint(format!("unset {VARIABLE}"))
            });
        }
        let home = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
        let candidates: Vec<PathBuf> = std::iter::once(host_file.to_owned())
            .chain(home.map(|folder| folder.join("assay/redaction.key")))
            .collect();
        for path in &candidates {
            if let Some(key) = Self::read(path)? {
                return Ok(key);
            }
        }
        let mut failures = Vec::new();
        for path in &candidates {
            match Self::generate(path) {
                Ok(key) => return Ok(key),
                Err(error) => failures.push(error.to_string()),
            }
        }
        Err(Error::new(
            Code::RedactionKey,
            format!("expected a place for the redaction key, found none: {}", failures.join("; ")),
        )
        .hint(format!("export {VARIABLE}=/path/to/an/existing/key")))
    }

    /// A key that lives as long as this value.
    ///
    /// # Errors
    /// `Internal` when the system gives no random bytes.
    pub fn ephemeral() -> Result<Self> {
        Ok(Self { bytes: random()?, scope: "ephemeral" })
    }

    /// A key from fixed bytes, for tests and golden files.
    #[must_use]
    pub const fn fixed(bytes: [u8; 32]) -> Self {
        Self { bytes, scope: "host_local" }
    }

    /// `host_local` or `ephemeral`.
    #[must_use]
    pub const fn scope(&self) -> &'static str {
        self.scope
    }

    /// `hmac-sha256:` and 8 hex digits; tells keys apart, gives nothing away.
    #[must_use]
    pub fn id(&self) -> String {
        format!("hmac-sha256:{}", self.mark("assay-redaction-key-id"))
    }

    /// First 8 hex digits of the HMAC of `text`.
    #[must_use]
    pub(super) fn mark(&self, text: &str) -> String {
        hmac8(&self.bytes, text.as_bytes())
    }

    fn read(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            // A folder that can't be entered holds no key for us; the next place may.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) || (error.kind() == std::io::ErrorKind::PermissionDenied && !path.exists()) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(wrong(path, format!("cannot read the redaction key: {error}"))),
        };
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(path)
                .map_err(|error| Error::io("cannot stat", path, error))?
                .permissions()
                .mode()
                & 0o777;
            if mode & 0o077 != 0 {
                return Err(wrong(
                    path,
                    format!("expected mode 0600 of the redaction key, found {mode:04o}"),
                )
                .hint(format!("chmod 600 {}", path.display())));
            }
        }
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok();
        text.trim()
            .strip_prefix(PREFIX)
            .and_then(decode)
            .and_then(|bytes| bytes.try_into().ok())
            .map(|bytes| Some(Self { bytes, scope: "host_local" }))
            .ok_or_else(|| {
                wrong(path, format!("expected {PREFIX} and base64url of 32 bytes, found something else"))
            })
    }

    fn generate(path: &Path) -> Result<Self> {
        let bytes = random()?;
        if let Some(folder) = path.parent()
            && !folder.exists()
        {
            create_private(folder)?;
        }
        let text = format!("{PREFIX}{}\n", URL_SAFE_NO_PAD.encode(bytes));
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let written = options.open(path).and_then(|mut file| {
            use std::io::Write;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        match written {
            Ok(()) => Ok(Self { bytes, scope: "host_local" }),
            // Another invocation was first: its key is the host's.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Self::read(path)?.ok_or_else(|| Error::io("cannot read", path, error))
            }
            Err(error) => Err(Error::io("cannot write the redaction key", path, error)),
        }
    }
}

fn create_private(folder: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(folder).map_err(|error| Error::io("cannot create the folder", folder, error))
}

fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(Code::Internal, format!("the system gave no random bytes: {error}")))?;
    Ok(bytes)
}

fn wrong(path: &Path, message: String) -> Error {
    Error::new(Code::RedactionKey, message).at(path.display())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn nothing(_: &str) -> Option<PathBuf> {
        None
    }

    #[test]
    fn the_hosts_key_is_generated_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("assay/redaction.key");
        let first = RedactionKey::discover_in(nothing, &file).unwrap();
        let again = RedactionKey::discover_in(nothing, &file).unwrap();
        assert_eq!(first.id(), again.id());
        assert_eq!(first.scope(), "host_local");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(std::fs::read_to_string(&file).unwrap().starts_with("assay-redaction-key-v1:"));
    }

    #[test]
    fn a_named_file_must_exist() {
        let folder = tempfile::tempdir().unwrap();
        let named = folder.path().join("named.key");
        let variable = |name: &str| (name == VARIABLE).then(|| named.clone());
        let error = RedactionKey::discover_in(variable, &folder.path().join("host.key")).unwrap_err();
        assert_eq!(error.code(), Code::RedactionKey);
        assert!(!named.exists() && !folder.path().join("host.key").exists());
    }

    #[test]
    fn the_home_of_the_user_is_the_second_place() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_owned();
        let variable = |name: &str| (name == "HOME").then(|| home.clone());
        RedactionKey::discover_in(variable, Path::new("/proc/no/redaction.key")).unwrap();
        assert!(folder.path().join(".local/share/assay/redaction.key").exists());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_line_that_fixes_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("redaction.key");
        RedactionKey::discover_in(nothing, &file).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = RedactionKey::discover_in(nothing, &file).unwrap_err();
        assert_eq!(error.advice(), Some(format!("chmod 600 {}", file.display()).as_str()));
    }

    #[test]
    fn a_file_that_is_not_a_key_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("redaction.key");
        for text in ["", "hello", "assay-redaction-key-v1:AAAA"] {
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(RedactionKey::discover_in(nothing, &file).unwrap_err().code(), Code::RedactionKey);
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        }
    }
}
