//! What may lie in a workspace.

use crate::host::{Host, snapshot};
use crate::support::need_root;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn a_hundred_thousand_files_go() {
    let host = Host::new();
    for folder in 0..100 {
        let folder = host.workspace().join(format!("d{folder}"));
        std::fs::create_dir(&folder).unwrap();
        let first = folder.join("f0");
        std::fs::write(&first, "x").unwrap();
        // Hard links are files like others to whoever removes them, and cheap to make.
        for file in 1..1_000 {
            std::fs::hard_link(&first, folder.join(format!("f{file}"))).unwrap();
        }
    }
    let report = host.apply_and_find_it_clean();
    assert_eq!(report["removed_entries"], 100_100);
}

#[test]
fn a_tree_deeper_than_any_path_or_descriptor_limit_goes() {
    let host = Host::new();
    let mut here =
        nix::fcntl::open(&host.workspace(), nix::fcntl::OFlag::O_DIRECTORY, nix::sys::stat::Mode::empty())
            .unwrap();
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o755);
    for _ in 0..3_000 {
        nix::sys::stat::mkdirat(&here, "deep", mode).unwrap();
        here = nix::fcntl::openat(&here, "deep", nix::fcntl::OFlag::O_DIRECTORY, mode).unwrap();
    }
    drop(here);
    let report = host.apply_and_find_it_clean();
    assert_eq!(report["removed_entries"], 3_000);
}

#[test]
fn links_are_removed_and_never_followed() {
    let host = Host::new();
    let before = snapshot(&host.path("outside"));
    symlink(host.path("outside"), host.workspace().join("to-folder")).unwrap();
    symlink(host.path("outside/keep.txt"), host.workspace().join("to-file")).unwrap();
    symlink("loop", host.workspace().join("loop")).unwrap();
    symlink("..", host.workspace().join("up")).unwrap();
    symlink("/", host.workspace().join("everything")).unwrap();
    symlink(host.path("outside"), host.path("runner/_work/linked-repository")).unwrap();
    symlink(host.path("outside"), host.path("runner/_work/app/linked-workspace")).unwrap();
    host.apply_and_find_it_clean();
    assert_eq!(snapshot(&host.path("outside")), before);
    assert!(host.path("runner/_work/linked-repository").symlink_metadata().is_err());
}

#[test]
fn a_root_behind_a_symbolic_link_is_refused() {
    let host = Host::new();
    std::fs::rename(host.path("runner/_work"), host.path("elsewhere")).unwrap();
    symlink(host.path("elsewhere"), host.path("runner/_work")).unwrap();
    host.write("elsewhere/app/app/x", "x");
    let output = host.clean("before-run", &["--apply"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("symbolic link"));
    assert!(host.path("elsewhere/app/app/x").exists());
}

#[test]
fn folders_without_permissions_of_foreign_owners_go() {
    if !need_root() {
        return;
    }
    let host = Host::new();
    for (name, owner) in [("a", 0), ("b", 12_345), ("c", 65_534)] {
        let file = host.write(&format!("runner/_work/app/app/{name}/inner/file"), "x");
        for path in [file.as_path(), file.parent().unwrap(), file.parent().unwrap().parent().unwrap()] {
            std::os::unix::fs::lchown(path, Some(owner), Some(owner)).unwrap();
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o000)).unwrap();
        }
    }
    let setuid = host.write("runner/_work/app/app/setuid", "x");
    std::fs::set_permissions(setuid, PermissionsExt::from_mode(0o4755)).unwrap();
    nix::unistd::mkfifo(&host.workspace().join("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o600))
        .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(host.workspace().join("socket")).unwrap();
    host.apply_and_find_it_clean();
}

fn chattr(flags: &str, path: &Path) {
    let status = Command::new("chattr").arg(flags).arg(path).status().unwrap();
    assert!(status.success(), "chattr {flags} {}", path.display());
}

#[test]
fn immutable_and_append_only_flags_are_cleared_and_counted() {
    if !need_root() {
        return;
    }
    let host = Host::new();
    let immutable = host.write("runner/_work/app/app/locked/immutable", "x");
    let append = host.write("runner/_work/app/app/locked/append", "x");
    let inner = host.write("runner/_work/app/app/locked/inner/file", "x");
    chattr("+i", &immutable);
    chattr("+a", &append);
    chattr("+a", inner.parent().unwrap());
    chattr("+i", immutable.parent().unwrap());
    let report = host.apply_and_find_it_clean();
    assert_eq!(report["steps"][0]["flags_cleared"], 4, "{report:#}");
}

#[test]
fn a_second_name_outside_keeps_its_immutable_flag() {
    if !need_root() {
        return;
    }
    let host = Host::new();
    let outside = host.path("outside/keep.txt");
    std::fs::hard_link(&outside, host.workspace().join("hard")).unwrap();
    chattr("+i", &outside);
    let (exit, report) = host.apply();
    let still = std::fs::write(&outside, "changed").is_err();
    chattr("-i", &outside);
    assert_eq!(exit, 0, "{report:#}");
    assert!(still, "the flag of a file outside the roots was taken away");
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "keep me\n");
}

struct Mounted(PathBuf);

impl Mounted {
    fn bind(source: &Path, target: &Path) -> Self {
        use nix::mount::{MsFlags, mount};
        mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        Self(target.to_path_buf())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _already_gone = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_mount_is_never_crossed_and_is_named_as_what_stayed() {
    if !need_root() {
        return;
    }
    let host = Host::new();
    let before = snapshot(&host.path("outside"));
    let folder = host.write("runner/_work/app/app/a/mounted/x", "covered").parent().unwrap().to_path_buf();
    let file = host.write("runner/_work/app/app/a/file", "covered");
    host.write("runner/_work/app/app/a/goes", "x");
    let mounts =
        (Mounted::bind(&host.path("outside"), &folder), Mounted::bind(&host.path("outside/keep.txt"), &file));
    let (exit, report) = host.apply();
    assert_eq!(exit, 13);
    assert_eq!(report["clean"], false);
    let stayed = report["stayed"].as_array().unwrap();
    let whys: Vec<&str> = stayed.iter().map(|stayed| stayed["why"].as_str().unwrap()).collect();
    assert_eq!(stayed.len(), 2, "{report:#}");
    assert!(whys.iter().any(|why| why.starts_with("a mount point")), "{whys:?}");
    assert!(whys.iter().any(|why| why.starts_with("busy")), "{whys:?}");
    assert!(!host.workspace().join("a/goes").exists(), "what is no mount goes nevertheless");
    assert_eq!(snapshot(&host.path("outside")), before);
    drop(mounts);
    host.apply_and_find_it_clean();
    assert_eq!(snapshot(&host.path("outside")), before);
}

#[test]
fn a_workspace_that_is_itself_a_mount_stays_and_is_named() {
    if !need_root() {
        return;
    }
    let host = Host::new();
    let before = snapshot(&host.path("outside"));
    let _mount = Mounted::bind(&host.path("outside"), &host.workspace());
    let (exit, report) = host.apply();
    assert_eq!(exit, 13, "{report:#}");
    assert_eq!(snapshot(&host.path("outside")), before);
}

#[test]
fn a_link_swapped_in_during_the_removal_leads_nowhere() {
    let host = Host::new();
    for file in 0..200 {
        host.write(&format!("outside/precious/{file}"), "precious");
    }
    let before = snapshot(&host.path("outside"));
    for round in 0..6 {
        let victim = host.workspace().join("a/b");
        for file in 0..300 {
            host.write(&format!("runner/_work/app/app/a/b/{round}-{file}/x"), "x");
        }
        let link = host.path("scratch/link");
        let _of_the_last_round = std::fs::remove_file(&link);
        symlink(host.path("outside/precious"), &link).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // Folder and link change places; fails once one of them is gone, which is fine.
                    let _swapped = nix::fcntl::renameat2(
                        nix::fcntl::AT_FDCWD,
                        &victim,
                        nix::fcntl::AT_FDCWD,
                        &link,
                        nix::fcntl::RenameFlags::RENAME_EXCHANGE,
                    );
                }
            });
            host.apply();
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(snapshot(&host.path("outside")), before, "round {round}");
        // The folder may have ended in the place of the link, outside of every root.
        if link.is_dir() {
            std::fs::remove_dir_all(&link).ok();
        }
        host.apply_and_find_it_clean();
    }
}

#[test]
fn a_name_with_newlines_and_escape_sequences_can_not_write_to_the_terminal() {
    let host = Host::new();
    let hostile = OsStr::from_bytes(b"assay\n::error::forged\x1b[2J\xff");
    std::fs::write(host.path("runner/_work").join(hostile), "x").unwrap();
    for arguments in [&[][..], &["--apply"][..]] {
        let output = host.clean("before-run", arguments);
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains('\x1b') && !text.contains("\n::error"), "{text}");
        assert!(text.contains(r"assay\n::error::forged\u{1b}[2J\xff"), "{text}");
    }
    assert!(host.path("runner/_work").join(hostile).symlink_metadata().is_err());
}
