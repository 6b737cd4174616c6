//! Interpreters, installers and packages, as the measured user finds them.

use super::{Check, Context};
use crate::error::Error;
use crate::host::environment::GATE_PATH;
use crate::host::program::{Who, resolve};
use crate::host::rights::Rights;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

pub(super) fn node(context: &Context<'_>) -> Check {
    of_gates(context, "node").unwrap_or_else(|| {
        // Gates bring the node of their lockfile; without one on the host they must have been installed.
        for_measured(context, "node", &["--version"], |found| {
            Check::warn(found, "gates bring their own node: assay-gates run --gates all --install --dry-run")
        })
    })
}

pub(super) fn python(context: &Context<'_>) -> Check {
    of_gates(context, "python").unwrap_or_else(|| {
        for_measured(context, "python3", &["-I", "-S", "--version"], |found| {
            Check::warn(found, "apt-get install -y python3")
        })
    })
}

/// The interpreters that gates will be run by; what is wrong with one is told with the packages.
fn of_gates(context: &Context<'_>, name: &str) -> Option<Check> {
    let mut gates = BTreeMap::<String, usize>::new();
    for (_, found) in context.inspections() {
        let Ok(found) = found else { continue };
        if let (Some(interpreter), Some((major, minor, patch))) =
            (found.interpreters.get(name), found.versions.get(name))
        {
            let place = interpreter.seen_from(Path::new("the fixture's"));
            *gates.entry(format!("{} {major}.{minor}.{patch}", place.display())).or_default() += 1;
        }
    }
    if gates.is_empty() {
        return None;
    }
    let told = gates.into_iter().map(|(interpreter, count)| format!("{interpreter} for {count} gates"));
    Some(Check::pass(told.collect::<Vec<_>>().join("; ")))
}

fn for_measured(
    context: &Context<'_>,
    name: &str,
    arguments: &[&str],
    missing: impl Fn(String) -> Check,
) -> Check {
    let Ok(user) = &context.user else {
        return Check::warn("no measured user to ask for", "see measured-user");
    };
    let who = Who { uid: user.uid, gid: user.gid, name: &user.name };
    let found = Rights::of_caller()
        .and_then(|caller| resolve(OsStr::new(name), OsStr::new(GATE_PATH), Path::new("/"), who, &caller));
    match found {
        Ok(found) => Check::pass(format!(
            "{} {} for {}",
            found.path.display(),
            said(&found.path, arguments, &who.rights()),
            user.name
        )),
        Err(error) => {
            // Root's own, which the measured user has no use of, explains most surprises.
            let roots =
                on_path(name).map(|path| format!("; root has {}", path.display())).unwrap_or_default();
            missing(format!("{error}{roots}"))
        }
    }
}

pub(super) fn npm(_: &Context<'_>) -> Check {
    installer("npm", "apt-get install -y npm")
}

pub(super) fn pip(_: &Context<'_>) -> Check {
    installer("pip3", "apt-get install -y python3-pip")
}

/// Used by root before measuring, only when packages are missing: its absence alone keeps nothing from being measured.
fn installer(name: &str, fix: &str) -> Check {
    match on_path(name) {
        Some(path) => Check::pass(path.display().to_string()),
        None => {
            Check::warn(format!("no {name} on PATH, so missing packages can't be installed from here"), fix)
        }
    }
}

pub(super) fn clang(context: &Context<'_>) -> Check {
    let names =
        std::iter::once("clang".to_owned()).chain((14..=22).rev().map(|version| format!("clang-{version}")));
    match names.filter_map(|name| on_path(&name)).next() {
        Some(path) if context.options.building => {
            // Root's PATH may lead into a folder of somebody else's.
            let told = match &context.user {
                Ok(user) => said(&path, &["--version"], &Rights::of_measured(user.uid, user.gid)),
                Err(_) => String::new(),
            };
            Check::pass(format!("{} {told}", path.display()).trim_end().to_owned())
        }
        Some(path) => Check::pass(path.display().to_string()),
        None => Check::warn(
            "no clang on PATH: this binary measures, but can't be built here",
            "apt-get install -y clang libbpf-dev",
        ),
    }
}

pub(super) fn packages(context: &Context<'_>) -> Check {
    if context.options.catalog.is_none() {
        return Check::pass("no gates given to look at");
    }
    let inspections = context.inspections();
    let problems: Vec<&Error> = inspections
        .iter()
        .flat_map(|(_, found)| match found {
            Ok(found) => found.problems.iter().collect(),
            Err(error) => vec![error],
        })
        .collect();
    let Some(first) = problems.first() else {
        return Check::pass(format!("as locked, for {} gates", inspections.len()));
    };
    let found = match problems.len() {
        1 => first.to_string(),
        count => format!("{first}; and {} more", count - 1),
    };
    Check::fail(found, first.advice().unwrap_or("assay-gates run --gates all --install"))
}

fn on_path(name: &str) -> Option<PathBuf> {
    let search = std::env::var_os("PATH")?;
    std::env::split_paths(&search).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// First line of what a program says of its version, run as the measured user; empty when it doesn't.
fn said(program: &Path, arguments: &[&str], measured: &Rights) -> String {
    let mut command = measured.command(program);
    let output = command.args(arguments).env_clear().current_dir("/").stderr(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(80).collect()
}
