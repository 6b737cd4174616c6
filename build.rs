//! Compiles the in-kernel programs with the machine's clang and hands them to `src/capture/object.rs`, with what is known of their build.

#[cfg(feature = "capture")]
mod ebpf {
    use sha2::{Digest, Sha256};
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::{env, fs};

    const MAIN: &str = "capture.bpf.c";
    const APT: &str = "apt-get install -y clang llvm libbpf-dev";

    pub fn build() {
        println!("cargo:rerun-if-env-changed=CLANG");
        println!("cargo:rerun-if-changed=ebpf");
        if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
            return;
        }
        if let Err(problem) = compile() {
            for line in problem.lines() {
                println!("cargo::error={line}");
            }
        }
    }

    fn compile() -> Result<(), String> {
        let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?);
        let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
        let sources = root.join("ebpf");
        let clang = find_clang()?;
        let object = out.join("capture.bpf.o");

        let architecture =
            env::var("CARGO_CFG_TARGET_ARCH").map_err(|_| "CARGO_CFG_TARGET_ARCH is not set")?;
        // An unknown one is refused by ebpf/kernel.h.
        let define = match architecture.as_str() {
            "x86_64" => "-D__TARGET_ARCH_x86",
            "aarch64" => "-D__TARGET_ARCH_arm64",
            _ => "-D__TARGET_ARCH_unknown",
        };
        let mut flags: Vec<String> =
            ["-g", "-O2", "-target", "bpf", "-mcpu=v3", define].map(String::from).to_vec();
        flags.extend(
            ["-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-unused-parameter"]
                .map(String::from),
        );
        // Where Debian keeps <asm/types.h>: clang's bpf target does not look there by itself.
        if let Some(include) = multiarch_include(&architecture) {
            flags.push(format!("-I{include}"));
        }
        // The object's digest must not depend on where the checkout stands.
        let reproducible =
            [format!("-fdebug-prefix-map={}=ebpf", sources.display()), "-fdebug-compilation-dir=ebpf".into()];
        let output = Command::new(&clang)
            .current_dir(&sources)
            .args(&flags)
            .args(&reproducible)
            .args(["-c", MAIN, "-o"])
            .arg(&object)
            .output()
            .map_err(|error| format!("cannot run {clang}: {error}"))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let hint = if text.contains("file not found") {
                format!("\nheaders are missing; run: {APT}")
            } else {
                String::new()
            };
            return Err(format!("{clang} could not compile ebpf/{MAIN}:\n{text}{hint}"));
        }
        let stripped = strip(&clang, &object);

        let digest = |path: &Path| -> Result<String, String> {
            let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
        };
        let mut names: Vec<String> = fs::read_dir(&sources)
            .map_err(|error| format!("{}: {error}", sources.display()))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.ends_with(".c") || name.ends_with(".h"))
            .collect();
        names.sort();
        let mut rows = String::new();
        for name in names {
            rows.push_str(&format!("    (\"ebpf/{name}\", \"{}\"),\n", digest(&sources.join(&name))?));
        }
        let facts = format!(
            "/// SHA-256 of the object, 64 hexadecimal digits.\npub const SHA256: &str = \"{}\";\n\
             /// First line of the compiler's version.\npub const COMPILER: &str = {:?};\n\
             /// Flags that decide what the object is.\npub const FLAGS: &str = {:?};\n\
             /// Whether debug sections were stripped.\npub const STRIPPED: bool = {stripped};\n\
             /// Path and SHA-256 of every source.\npub const SOURCES: &[(&str, &str)] = &[\n{rows}];\n",
            digest(&object)?,
            version(&clang).unwrap_or_default(),
            flags.join(" "),
        );
        fs::write(out.join("object.rs"), facts).map_err(|error| format!("cannot write object.rs: {error}"))
    }

    fn find_clang() -> Result<String, String> {
        if let Ok(clang) = env::var("CLANG") {
            return version(&clang)
                .map(|_| clang.clone())
                .ok_or(format!("$CLANG is {clang:?}, which does not run"));
        }
        let versioned = (14..=22).rev().map(|version| format!("clang-{version}"));
        std::iter::once("clang".to_owned())
            .chain(versioned)
            .find(|name| version(name).is_some())
            .ok_or(format!("no clang found (tried $CLANG, clang, clang-22 to clang-14); run: {APT}"))
    }

    fn version(clang: &str) -> Option<String> {
        let output =
            Command::new(clang).arg("--version").output().ok().filter(|output| output.status.success())?;
        String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
    }

    /// The second one is that of a cross compiler.
    fn multiarch_include(architecture: &str) -> Option<String> {
        [format!("/usr/include/{architecture}-linux-gnu"), format!("/usr/{architecture}-linux-gnu/include")]
            .into_iter()
            .find(|include| Path::new(include).join("asm/types.h").is_file())
    }

    /// Drops debug sections (BTF stays) when llvm-strip is there; the object works without as well.
    fn strip(clang: &str, object: &Path) -> bool {
        let suffix = clang.rsplit_once("clang").map_or("", |(_, suffix)| suffix);
        [format!("llvm-strip{suffix}"), "llvm-strip".to_owned()].iter().any(|tool| {
            Command::new(tool).arg("-g").arg(object).status().is_ok_and(|status| status.success())
        })
    }
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "capture")]
    ebpf::build();
}
