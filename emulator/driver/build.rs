//! Builds the two shims and the list of functions that both sides share.
//!
//! A shim is a shared library of jumps: function number *i* of `functions.txt` jumps to slot *i* of the exported table
//! `PTX_EMULATOR_TABLE`, which the crate fills when it is installed. There are two because a library has one SONAME and
//! programs ask for a driver by two names. The shims contain no other code and need no other library.

use std::{env, error::Error, ffi::OsString, fmt::Write, fs, path::Path, process::Command};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=functions.txt");
    let out = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    let out = Path::new(&out);
    let text = fs::read_to_string("functions.txt")?;
    let names: Vec<&str> =
        text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).collect();

    fs::write(out.join("functions.rs"), macro_over(&names))?;
    let has = |key: &str, value: &str| env::var(key).is_ok_and(|v| v == value);
    if has("CARGO_CFG_TARGET_ARCH", "x86_64")
        && has("CARGO_CFG_TARGET_OS", "linux")
        && has("CARGO_CFG_TARGET_ENV", "gnu")
    {
        let source = out.join("shim.rs");
        fs::write(&source, shim_source(&names)?)?;
        for soname in ["libcuda.so", "libcuda.so.1"] {
            compile(&source, out, soname)?;
        }
    }
    Ok(())
}

/// A macro that hands every name to another macro; it is how the table here and the exports of the shared library
/// `ptx-emulator-libcuda` come from the one list.
fn macro_over(names: &[&str]) -> String {
    format!(
        "/// Calls the macro `$with` with the names of all exported driver functions, separated by blanks.\n\
         #[macro_export]\n\
         macro_rules! for_each_driver_function {{\n    ($with:ident) => {{ $with! {{ {} }} }};\n}}\n",
        names.join(" ")
    )
}

fn shim_source(names: &[&str]) -> Result<String, std::fmt::Error> {
    let mut text = String::from(
        "#![no_std]\n\
         #[panic_handler]\nfn panic(_: &core::panic::PanicInfo) -> ! { loop {} }\n",
    );
    let count = names.len();
    writeln!(
        text,
        "#[unsafe(no_mangle)] pub static mut PTX_EMULATOR_TABLE: [usize; {count}] = [0; {count}];"
    )?;
    for (slot, name) in names.iter().enumerate() {
        writeln!(
            text,
            "#[unsafe(no_mangle)] #[unsafe(naked)] pub unsafe extern \"C\" fn {name}() {{ core::arch::naked_asm!(\
             \"mov rax, [rip + {{table}}@GOTPCREL]\", \"jmp qword ptr [rax + {}]\", table = sym PTX_EMULATOR_TABLE) }}",
            slot * size_of::<u64>()
        )?;
    }
    Ok(text)
}

fn compile(source: &Path, out: &Path, soname: &str) -> Result<(), Box<dyn Error>> {
    let variable = |key: &str| env::var_os(key).ok_or(format!("{key} is not set"));
    let mut rustc = Command::new(variable("RUSTC")?);
    rustc.arg(source).args(["--crate-type=cdylib", "--crate-name=cuda", "--edition=2024"]);
    rustc.args(["-Copt-level=1", "-Cpanic=abort", "-Cstrip=symbols"]);
    rustc.args(["-Clink-arg=-nostdlib", &format!("-Clink-arg=-Wl,-soname,{soname}")]);
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut argument = OsString::from("-Clinker=");
        argument.push(linker);
        rustc.arg(argument);
    }
    rustc.arg("--target").arg(variable("TARGET")?).arg("-o").arg(out.join(soname));
    let status = rustc.status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("rustc could not build the shim {soname}: {status}").into())
    }
}
