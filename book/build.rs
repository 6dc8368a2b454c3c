//! Lists the pages, so that rustdoc finds their Rust snippets: each page becomes the
//! documentation of an item, and its snippets are tested with the crate.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("en");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut pages = Vec::new();
    collect(&folder, &mut pages);
    pages.sort();
    let mut items = String::new();
    for (number, page) in pages.iter().enumerate() {
        // Included code is compiled in its chapter.
        let text = fs::read_to_string(page).expect("a page");
        let is_snippet = |line: &str| line.starts_with("```rust") && line != "```rust,ignore";
        if !text.lines().any(is_snippet) {
            continue;
        }
        writeln!(
            items,
            "#[doc = include_str!({page:?})]\nstruct Page{number};"
        )
        .expect("a string");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("snippets.rs"), items).expect("cargo's own folder");
}

fn collect(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the pages").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, pages);
        } else if path.extension().is_some_and(|it| it == "md") {
            pages.push(path);
        }
    }
}
