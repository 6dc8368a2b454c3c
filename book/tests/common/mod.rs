//! Small books for the checks: a right one, and what makes it wrong.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

const GOOD: [(&str, &str); 6] = [
    ("book/book.toml", "[book]\ntitle = \"A small book\"\nsrc = \"en\"\n"),
    (
        "book/en/SUMMARY.md",
        "# Summary\n\n- [Echo](echo.md)\n- [Glossary](glossary.md)\n",
    ),
    (
        "book/en/echo.md",
        "# Echo {#echo}

An <dfn id=\"def-echo\">echo</dfn> sends back what came. See [below](#below) and
[the program](../../chapters/ch01-echo/src/main.rs).

<p class=\"step\"><a href=\"../../chapters/ch01-echo/src/main.rs#L3\">chapters/ch01-echo/src/main.rs</a> <span>lines 3–5</span></p>

```rust,ignore
{{#include ../../chapters/ch01-echo/src/main.rs:main}}
```

<p class=\"step\"><a href=\"../../chapters/ch01-echo/src/main.rs#L9\">chapters/ch01-echo/src/main.rs</a> <span>line 9</span></p>

```rust,ignore
{{#include ../../chapters/ch01-echo/src/main.rs:help}}
```

## Below {#below}

<p class=\"step\"><a href=\"../../chapters/ch01-echo/src/main.rs#L3\">chapters/ch01-echo/src/main.rs</a> <span>the whole file</span></p>

```rust,ignore
{{#include ../../chapters/ch01-echo/src/main.rs:all}}
```

![a wave](wave.svg)
",
    ),
    ("book/en/glossary.md", "# Glossary {#glossary}\n\n[echo](echo.md#def-echo)\n: what came, sent back\n"),
    (
        "book/en/wave.svg",
        "<svg viewBox=\"0 0 9 9\" role=\"img\">\n<title>a wave</title>\n<path d=\"M0,0h9\"/>\n</svg>\n",
    ),
    (
        "chapters/ch01-echo/src/main.rs",
        "// ANCHOR: all
// ANCHOR: main
fn main() {
    help();
}
// ANCHOR_END: main

// ANCHOR: help
fn help() {}
// ANCHOR_END: help
// ANCHOR_END: all
",
    ),
];

/// A repository in a temporary folder: the right book, with some files added or replaced.
pub(crate) fn repository(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (path, text) in GOOD.iter().chain(files) {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a new folder");
        fs::write(path, text).expect("a new file");
    }
    folder
}

/// The text of a page of the right book.
#[allow(dead_code, reason = "not every test needs it")]
pub(crate) fn good(path: &str) -> &'static str {
    let found = GOOD.iter().find(|(name, _)| *name == path);
    found.expect("a file of the right book").1
}

/// What the checks say of the book at `root`, a line for each problem.
#[allow(dead_code, reason = "not every test needs it")]
pub(crate) fn problems(root: &Path) -> Vec<String> {
    let problems = book::check_sources(root).expect("readable sources");
    problems.iter().map(ToString::to_string).collect()
}
