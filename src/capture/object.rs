//! The compiled in-kernel programs and what is known of their build.

/// The embedded object and its provenance.
#[derive(Clone, Copy, Debug)]
pub struct Object {
    /// The ELF object, aligned for parsing.
    pub bytes: &'static [u8],
    /// SHA-256 of `bytes`, 64 lowercase hexadecimal digits.
    pub sha256: &'static str,
    /// First line of the compiler's version.
    pub compiler: &'static str,
    /// Compiler flags that decide what the object is.
    pub flags: &'static str,
    /// Whether debug sections were stripped.
    pub stripped: bool,
    /// Path (relative to the source tree) and SHA-256 of every source file.
    pub sources: &'static [(&'static str, &'static str)],
}

#[cfg(all(feature = "capture", target_os = "linux"))]
mod built {
    include!(concat!(env!("OUT_DIR"), "/object.rs"));

    pub(super) const EMBEDDED: super::Object = super::Object {
        bytes: aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/capture.bpf.o")),
        sha256: SHA256,
        compiler: COMPILER,
        flags: FLAGS,
        stripped: STRIPPED,
        sources: SOURCES,
    };
}

/// The object that this binary carries; `None` when it was built without the measuring half.
#[must_use]
pub fn embedded() -> Option<Object> {
    #[cfg(all(feature = "capture", target_os = "linux"))]
    return Some(built::EMBEDDED);
    #[cfg(not(all(feature = "capture", target_os = "linux")))]
    None
}
