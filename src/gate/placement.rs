//! Where the parts of an agent lie, looked at before it is measured.
//!
//! A gate sees of the host's files the folder of its fixture, and the folders of [`PROGRAM_FOLDERS`]. What an agent needs
//! from elsewhere (a virtual environment beside it, packages hoisted to a workspace's root) is not there when it runs,
//! and the program would only say that a module is missing.

use crate::error::{Code, Error, Result};
use crate::files::quoted;
use crate::host::environment::GATE_PATH;
use crate::host::{FIXTURE, PROGRAM_FOLDERS};
use std::path::{Component, Path, PathBuf};

/// Programs that look packages up in a registry, a cache or a project of the caller's, each with the line that installs
/// what they would run into the gate's folder.
const LAUNCHERS: [(&str, &str); 6] = [
    ("uv", "UV_PROJECT_ENVIRONMENT={folder}/.venv uv sync --no-editable --python /usr/bin/python3"),
    (
        "uvx",
        "uv venv --python /usr/bin/python3 {folder}/.venv && uv pip install --python {folder}/.venv PACKAGE",
    ),
    ("poetry", "python3 -m venv {folder}/.venv && {folder}/.venv/bin/pip install -r requirements.txt"),
    ("pipenv", "python3 -m venv {folder}/.venv && {folder}/.venv/bin/pip install -r requirements.txt"),
    ("pdm", "python3 -m venv {folder}/.venv && {folder}/.venv/bin/pip install -r requirements.txt"),
    ("npx", "npm install --prefix {folder} --workspaces=false --install-links"),
];

/// An agent's command and where it is to become a gate.
#[derive(Clone, Copy, Debug)]
pub struct Placement<'a> {
    /// The gate's folder, absolute and without links.
    pub folder: &'a Path,
    /// The program and its arguments, as the caller wrote them.
    pub command: &'a [String],
    /// The caller's working folder.
    pub cwd: &'a Path,
    /// The caller's `PATH`.
    pub search: &'a str,
}

impl Placement<'_> {
    /// The command as the measured program will find it: files of the gate's folder by where they lie then, however the
    /// caller named them.
    #[must_use]
    pub fn command(&self) -> Vec<String> {
        self.command.iter().map(|word| self.in_fixture(word).unwrap_or_else(|| word.clone())).collect()
    }

    fn in_fixture(&self, word: &str) -> Option<String> {
        let inside = self.inside(word)?;
        Some(format!("{FIXTURE}/{}", inside.to_str()?))
    }

    /// Path within the gate's folder of a word that names a file there: from there, from where the caller is, or whole.
    fn inside(&self, word: &str) -> Option<PathBuf> {
        if word.is_empty() || word.starts_with('-') {
            return None;
        }
        let from = |base: &Path| {
            let path = crate::files::normalise(&base.join(word))?;
            // The name is kept, not where a link leads: python finds its environment by the name it was called by.
            let inside = path.strip_prefix(self.folder).ok()?.to_path_buf();
            path.is_file().then_some(inside)
        };
        from(self.folder).or_else(|| word.contains('/').then(|| from(self.cwd)).flatten())
    }

    /// Refuses what the gate will not find, with the line that puts it where it must lie.
    ///
    /// # Errors
    /// `ProgramUnusable`.
    pub fn check(&self) -> Result<()> {
        let Some(program) = self.command.first() else { return Ok(()) };
        let name = Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or(program);
        if let Some((_, line)) = LAUNCHERS.iter().find(|(launcher, _)| *launcher == name) {
            return Err(self.refused(
                format!("expected the agent's own program, found {name}, which needs a network and its caller's home"),
                &format!("{line}; then give .venv/bin/python or node with the agent's file as the program"),
            ));
        }
        self.program(program)?;
        self.script()?;
        for environment in subfolders(self.folder).filter(|folder| folder.join("pyvenv.cfg").is_file()) {
            self.environment(&environment)?;
        }
        if name.starts_with("node") || self.command.iter().any(|word| is_javascript(word)) {
            self.modules()?;
        }
        Ok(())
    }

    /// The program lies in the gate's folder or where every gate sees it.
    fn program(&self, program: &str) -> Result<()> {
        let found = if !program.contains('/') {
            on_path(program, self.search)
        } else if self.inside(program).is_some() {
            None
        } else {
            crate::files::normalise(&self.cwd.join(program)).filter(|path| path.is_file())
        };
        if let Some(inside) = self.inside(program) {
            return self.interpreter(&self.folder.join(inside));
        }
        let Some(path) = found.filter(|path| !self.seen(path)) else { return Ok(()) };
        let environment = path.parent().and_then(Path::parent).filter(|dir| dir.join("pyvenv.cfg").is_file());
        if let Some(environment) = environment {
            return Err(self.refused(
                format!(
                    "expected the virtual environment in the gate's folder, found {}",
                    environment.display()
                ),
                &format!("{}; then give .venv/bin/python as the program", NEW_ENVIRONMENT),
            ));
        }
        // One that only stands before the gate's own in the caller's PATH (a shim of a version manager) is passed over.
        if !program.contains('/') && on_path(program, GATE_PATH).is_some() {
            return Ok(());
        }
        Err(self.refused(
            format!("expected a program that a gate sees, found {}", path.display()),
            &format!("cp {} {{folder}}/, or install it below /usr", quoted(&path.display().to_string())),
        ))
    }

    /// The first argument that is a file lies in the gate's folder.
    fn script(&self) -> Result<()> {
        let Some(word) = self.command.iter().skip(1).find(|word| !word.starts_with('-')) else {
            return Ok(());
        };
        if self.inside(word).is_some() {
            return Ok(());
        }
        let there = self.cwd.join(word);
        if !there.is_file() || self.seen(&there) {
            return Ok(());
        }
        Err(self.refused(
            format!("expected the agent's files in the gate's folder, found {}", there.display()),
            &format!("cp {} {{folder}}/", quoted(&there.display().to_string())),
        ))
    }

    /// A script of the gate's folder whose first line names the folder by where it lies outside.
    fn interpreter(&self, script: &Path) -> Result<()> {
        let mut head = [0; 512];
        let read = std::fs::File::open(script).and_then(|mut file| std::io::Read::read(&mut file, &mut head));
        let head = String::from_utf8_lossy(&head[..read.unwrap_or(0)]).into_owned();
        let Some(interpreter) = head.strip_prefix("#!").and_then(|line| line.split_whitespace().next())
        else {
            return Ok(());
        };
        if everywhere(Path::new(interpreter)) {
            return Ok(());
        }
        let inside = Path::new(interpreter).strip_prefix(self.folder).ok();
        let script = script.strip_prefix(self.folder).unwrap_or(script).display().to_string();
        let shown = inside.map_or_else(|| "python3".to_owned(), |path| path.display().to_string());
        Err(self.refused(
            format!(
                "expected an interpreter that a gate sees, found {interpreter} in the first line of {script}"
            ),
            &format!("give the interpreter as the program: {} {}", quoted(&shown), quoted(&script)),
        ))
    }

    /// A virtual environment of the gate's folder: its interpreter and its packages are seen too.
    fn environment(&self, environment: &Path) -> Result<()> {
        let python = environment.join("bin/python");
        if let Ok(real) = python.canonicalize()
            && !self.seen(&real)
        {
            return Err(self.refused(
                format!(
                    "expected a virtual environment of an interpreter that a gate sees, found that of {}",
                    real.display()
                ),
                &format!("rm -r {} && {NEW_ENVIRONMENT}", quoted(&environment.display().to_string())),
            ));
        }
        let packages = subfolders(&environment.join("lib")).map(|version| version.join("site-packages"));
        for file in packages.flat_map(|folder| files(&folder)) {
            if file.extension().is_none_or(|extension| extension != "pth") {
                continue;
            }
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            if let Some(line) =
                text.lines().find(|line| line.starts_with('/') && !everywhere(Path::new(line)))
            {
                return Err(self.refused(
                    format!("expected installed packages, found one that {} links to {line}", file.display()),
                    &format!(
                        "install it without -e: {}/bin/pip install {}",
                        environment.display(),
                        quoted(line)
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The packages of a `package.json` lie beside it, and lead nowhere else.
    fn modules(&self) -> Result<()> {
        let install = "npm install --prefix {folder} --workspaces=false --install-links";
        let own = self.folder.join("node_modules");
        if !own.is_dir() {
            let manifest = std::fs::read(self.folder.join("package.json")).unwrap_or_default();
            let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap_or_default();
            if manifest["dependencies"].as_object().is_none_or(serde_json::Map::is_empty) {
                return Ok(());
            }
            let mut hoisted = self.folder.ancestors().skip(1).map(|folder| folder.join("node_modules"));
            let found = hoisted.find(|folder| folder.is_dir());
            let found = found.map_or_else(|| "none".to_owned(), |folder| folder.display().to_string());
            return Err(self.refused(
                format!("expected the packages of package.json in {}, found {found}", own.display()),
                install,
            ));
        }
        let scoped = subfolders(&own).filter(|folder| name_of(folder).starts_with('@'));
        for package in subfolders(&own).chain(scoped.flat_map(|scope| subfolders(&scope))) {
            if let Ok(real) = package.canonicalize()
                && !self.seen(&real)
            {
                return Err(self.refused(
                    format!(
                        "expected the packages in {}, found {} linked to {}",
                        own.display(),
                        name_of(&package),
                        real.display()
                    ),
                    install,
                ));
            }
        }
        Ok(())
    }

    /// Whether a gate sees what lies at an absolute path.
    fn seen(&self, path: &Path) -> bool {
        path.starts_with(self.folder) || everywhere(path)
    }

    fn refused(&self, message: String, hint: &str) -> Error {
        let shown = self.folder.strip_prefix(self.cwd).unwrap_or(self.folder).display().to_string();
        Error::new(Code::ProgramUnusable, message)
            .at(self.folder.display())
            .hint(hint.replace("{folder}", &quoted(&shown)))
    }
}

const NEW_ENVIRONMENT: &str =
    "/usr/bin/python3 -m venv {folder}/.venv && {folder}/.venv/bin/pip install -r requirements.txt";

/// Whether every gate sees it under that very name; the gate's own folder has another name inside.
fn everywhere(path: &Path) -> bool {
    PROGRAM_FOLDERS.iter().any(|folder| path.starts_with(folder))
}

fn on_path(program: &str, search: &str) -> Option<PathBuf> {
    std::env::split_paths(search).map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn is_javascript(word: &str) -> bool {
    let extension = Path::new(word).extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("js" | "mjs" | "cjs" | "ts" | "mts"))
}

fn name_of(path: &Path) -> String {
    path.components()
        .next_back()
        .map(|part| {
            if let Component::Normal(name) = part {
                name.to_string_lossy().into_owned()
            } else {
                String::new()
            }
        })
        .unwrap_or_default()
}

/// What a folder holds, sorted; nothing when it can't be read.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    all.sort();
    all
}

/// Folders, and links to folders, directly below one.
fn subfolders(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    files(folder).into_iter().filter(|path| path.is_dir())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Case {
        _place: tempfile::TempDir,
        cwd: PathBuf,
        gate: PathBuf,
    }

    impl Case {
        fn new() -> Self {
            let place = tempfile::tempdir().unwrap();
            let cwd = place.path().canonicalize().unwrap();
            let gate = cwd.join("gates/my-agent");
            std::fs::create_dir_all(&gate).unwrap();
            Self { _place: place, cwd, gate }
        }

        fn file(&self, path: &str, text: &str) -> &Self {
            let path = self.cwd.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
            self
        }

        fn of<T>(&self, words: &[&str], search: &str, ask: impl Fn(&Placement) -> T) -> T {
            let command: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            ask(&Placement { folder: &self.gate, command: &command, cwd: &self.cwd, search })
        }

        /// What is refused, and the hint; empty when nothing is.
        fn told(&self, words: &[&str], search: &str) -> String {
            self.of(words, search, |placement| match placement.check() {
                Ok(()) => String::new(),
                Err(error) => format!("{error}; {}", error.advice().unwrap()),
            })
        }
    }

    #[test]
    fn a_file_of_the_gate_is_found_however_it_was_named() {
        let case = Case::new();
        case.file("gates/my-agent/agent.py", "");
        let whole = case.gate.join("agent.py").display().to_string();
        for name in ["agent.py", "./agent.py", "gates/my-agent/agent.py", &whole] {
            let command = case.of(&["python3", name, "--fast"], "", |placement| placement.command());
            assert_eq!(command, ["python3", "/run/assay-gates/fixture/agent.py", "--fast"], "{name}");
        }
        assert_eq!(
            case.of(&["sh", "-c", "echo x"], "", |placement| placement.command()),
            ["sh", "-c", "echo x"]
        );
    }

    #[test]
    fn what_lies_elsewhere_is_refused_with_the_line_that_puts_it_in_place() {
        let case = Case::new();
        case.file("gates/my-agent/agent.py", "").file("other.py", "");
        case.file(".venv/pyvenv.cfg", "").file(".venv/bin/python", "").file("tool/run", "");
        let venv = case.cwd.join(".venv/bin").display().to_string();
        for (words, search, expected) in [
            (vec![".venv/bin/python", "agent.py"], "", "python3 -m venv gates/my-agent/.venv"),
            (vec!["python", "agent.py"], venv.as_str(), "python3 -m venv gates/my-agent/.venv"),
            (vec!["python3", "other.py"], "", "other.py gates/my-agent/"),
            (vec!["tool/run"], "", "tool/run gates/my-agent/"),
            (vec!["uv", "run", "agent.py"], "", "UV_PROJECT_ENVIRONMENT=gates/my-agent/.venv uv sync"),
            (vec!["/usr/bin/npx", "tsx", "agent.ts"], "", "npm install --prefix gates/my-agent"),
        ] {
            let told = case.told(&words, search);
            assert!(told.contains(expected), "{words:?}: {told}");
        }
        assert_eq!(case.told(&["python3", "agent.py"], "/usr/bin"), "");
        assert_eq!(
            case.told(&["python3", "agent.py", "other.py"], "/usr/bin"),
            "",
            "an argument of the agent's"
        );
        assert_eq!(case.told(&["/bin/sh", "-c", "true"], ""), "");
        case.file("shims/sh", "").file("shims/only-here", "");
        let shims = case.cwd.join("shims").display().to_string();
        assert_eq!(case.told(&["sh", "-c", "true"], &shims), "", "the gate has its own");
        assert!(case.told(&["only-here"], &shims).contains("shims/only-here gates/my-agent/"));
    }

    #[test]
    fn a_virtual_environment_is_whole_within_the_gate_or_refused() {
        let case = Case::new();
        case.file("gates/my-agent/agent.py", "").file("gates/my-agent/.venv/pyvenv.cfg", "");
        case.file("gates/my-agent/.venv/lib/python3.11/site-packages/a.pth", "import a\n");
        std::fs::create_dir_all(case.gate.join(".venv/bin")).unwrap();
        let python = case.gate.join(".venv/bin/python");
        symlink("/bin/sh", &python).unwrap();
        let words = [".venv/bin/python", "agent.py"];
        assert_eq!(case.told(&words, ""), "");
        case.file("gates/my-agent/.venv/bin/agent", &format!("#!{}\n", python.display()));
        assert!(case.told(&[".venv/bin/agent"], "").contains(": .venv/bin/python .venv/bin/agent"));
        case.file("gates/my-agent/.venv/lib/python3.11/site-packages/a.pth", "/home/me/src\n");
        assert!(case.told(&words, "").contains("without -e"), "{}", case.told(&words, ""));
        std::fs::remove_file(&python).unwrap();
        case.file("uv/python3.11", "");
        symlink(case.cwd.join("uv/python3.11"), &python).unwrap();
        assert!(case.told(&words, "").contains("rm -r"), "{}", case.told(&words, ""));
    }

    #[test]
    fn packages_of_a_workspace_must_lie_in_the_gate() {
        let case = Case::new();
        case.file("gates/my-agent/agent.mjs", "").file("gates/my-agent/package.json", "{}");
        let words = ["node", "agent.mjs"];
        assert_eq!(case.told(&words, "/usr/bin"), "", "it names no packages");
        case.file("gates/my-agent/package.json", r#"{"dependencies": {"a": "1"}}"#);
        assert!(case.told(&words, "/usr/bin").contains("found none"));
        case.file("node_modules/a/index.js", "");
        let told = case.told(&words, "/usr/bin");
        assert!(told.contains(&case.cwd.join("node_modules").display().to_string()), "{told}");
        assert!(told.contains("npm install --prefix gates/my-agent --workspaces=false"), "{told}");
        std::fs::create_dir_all(case.gate.join("node_modules/@me")).unwrap();
        assert_eq!(case.told(&words, "/usr/bin"), "");
        case.file("packages/b/index.js", "");
        symlink(case.cwd.join("packages/b"), case.gate.join("node_modules/@me/b")).unwrap();
        assert!(case.told(&words, "/usr/bin").contains("b linked to"), "{}", case.told(&words, "/usr/bin"));
    }
}
