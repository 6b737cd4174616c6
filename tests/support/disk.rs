//! A file system of a given size, so that a disk can be full without one.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A tmpfs, gone when it is dropped. Needs root.
pub struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// `options` as of `mount -o`: `size=64k`, `nr_inodes=20`.
    pub fn new(options: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk = Self { folder };
        disk.mount(&format!("mode=755,{options}"));
        disk
    }

    /// Gives it another size.
    pub fn resize(&self, options: &str) {
        self.mount(&format!("remount,{options}"));
    }

    fn mount(&self, options: &str) {
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(self.path()).status();
        assert!(status.unwrap().success(), "{options}");
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _best_effort = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
