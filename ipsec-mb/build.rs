//! Compiles the shim against the library's header, where that is there (Debian: libipsec-mb-dev). Without it the crate
//! says that the library is absent.

use std::{env, path::Path};

const HEADER: &str = "/usr/include/intel-ipsec-mb.h";

fn main() {
    println!("cargo:rerun-if-changed=src/shim.c");
    println!("cargo:rerun-if-changed={HEADER}");
    println!("cargo:rustc-check-cfg=cfg(shim)");
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() != Ok("x86_64") {
        return; // the library is for this architecture alone
    }
    if !Path::new(HEADER).exists() {
        println!(
            "cargo:warning={HEADER} is not there (Debian: libipsec-mb-dev): vpnd will seal without AVX-512, with \
             nearly twice the processor time"
        );
        return;
    }
    cc::Build::new().file("src/shim.c").std("c11").warnings_into_errors(true).compile("vpnd_ipsec_mb");
    println!("cargo:rustc-link-lib=dl"); // before glibc 2.34, dlopen had a library of its own
    println!("cargo:rustc-cfg=shim");
}
