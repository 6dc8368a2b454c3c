//! Each check rejects a small book with the one mistake that it is for, and names the place.

use std::fs;
use std::process::Command;

use book::{includes, render, source::Source};
use common::{good, problems, repository};

mod common;

const PAGE: &str = "book/en/echo.md";
const PROGRAM: &str = "chapters/ch01-echo/src/main.rs";

#[test]
fn the_book_itself_is_right() {
    let root = book::repository();
    let found = problems(&root);
    assert!(found.is_empty(), "{}", found.join("\n"));
    let to = tempfile::tempdir().expect("a temporary folder");
    render::build(&root, to.path()).expect("mdBook is content");
}

#[test]
fn a_right_book_has_no_problems() {
    let folder = repository(&[]);
    assert_eq!(problems(folder.path()), [""; 0]);
    let to = folder.path().join("html");
    render::build(folder.path(), &to).expect("mdBook is content");
    assert!(to.join("echo.html").is_file());
    assert!(to.join(PROGRAM).is_file(), "what pages link to is served");
}

#[test]
fn the_command_names_what_is_wrong_and_fails() {
    let check = |folder: &tempfile::TempDir| {
        let output = Command::new(env!("CARGO_BIN_EXE_book"))
            .args(["check", "--repository"])
            .arg(folder.path())
            .output()
            .expect("the command runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said)
    };
    let (status, said) = check(&repository(&[]));
    assert_eq!(status, Some(0), "{said}");
    assert!(said.ends_with("The book is right.\n"), "{said}");

    let bad = good(PAGE).replace("(#below)", "(#above)") + "\n[^1]: nobody refers to it\n";
    let (status, said) = check(&repository(&[(PAGE, &bad)]));
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains("book/en/echo.md:3: #above leads nowhere"),
        "{said}"
    );
    assert!(
        said.contains("mdBook warns:\nfootnote `1` in `echo.md`"),
        "{said}"
    );
    assert!(said.ends_with("2 problems\n"), "{said}");
}

/// The right book with `old` replaced by `new` on its page has this one problem.
fn rejects(old: &str, new: &str, problem: &str) {
    rejects_file(PAGE, old, new, problem);
}

fn rejects_file(file: &str, old: &str, new: &str, problem: &str) {
    let right = good(file);
    assert!(right.contains(old), "{old:?} stands in {file}");
    let wrong = right.replacen(old, new, 1);
    let folder = repository(&[(file, &wrong)]);
    assert_eq!(problems(folder.path()), [problem]);
}

#[test]
fn a_missing_anchor() {
    let folder = repository(&[(
        PAGE,
        &good(PAGE).replace("main.rs:main}}", "main.rs:mian}}"),
    )]);
    let found = problems(folder.path());
    assert_eq!(
        found[0],
        "book/en/echo.md:9: chapters/ch01-echo/src/main.rs has no anchor \"mian\", or it is not closed"
    );
    assert!(
        found[1..]
            .iter()
            .all(|it| it.contains("no step of the book")),
        "{found:?}"
    );
}

#[test]
fn an_anchor_that_is_not_closed() {
    let unclosed = good(PROGRAM).replace("// ANCHOR_END: main\n", "");
    let folder = repository(&[(PROGRAM, &unclosed)]);
    let found = problems(folder.path());
    assert!(
        found[0].contains("book/en/echo.md:9: ") && found[0].contains("not closed"),
        "{found:?}"
    );
}

#[test]
fn an_empty_anchor() {
    let emptied = good(PROGRAM).replacen(
        "fn main",
        "// ANCHOR: nothing\n\n// ANCHOR_END: nothing\nfn main",
        1,
    );
    let page = good(PAGE).to_string()
        + "\n```rust,ignore\n{{#include ../../chapters/ch01-echo/src/main.rs:nothing}}\n```\n";
    let folder = repository(&[(PROGRAM, &emptied), (PAGE, &page)]);
    let found = problems(folder.path()).join("\n");
    assert!(
        found.contains("echo.md:29: ../../chapters/ch01-echo/src/main.rs:nothing shows nothing"),
        "{found}"
    );
}

#[test]
fn a_missing_file() {
    let page = good(PAGE).to_string() + "\n```text\n{{#include ../gone.txt}}\n```\n";
    let folder = repository(&[(PAGE, &page)]);
    let found = problems(folder.path());
    assert_eq!(
        found,
        [
            "book/en/echo.md:29: cannot include book/gone.txt: No such file or directory (os error 2)"
        ]
    );
}

#[test]
fn a_line_that_no_step_shows() {
    rejects_file(
        PROGRAM,
        "// ANCHOR_END: all",
        "fn more() {}\n// ANCHOR_END: all",
        "chapters/ch01-echo/src/main.rs:11: no step of the book shows this line: fn more() {}",
    );
}

#[test]
fn blank_lines_attributes_and_imports_need_no_step() {
    let program = good(PROGRAM).replacen(
        "// ANCHOR: all\n",
        "// ANCHOR: all\n#[cfg(unix)]\nuse std::{\n    io,\n    fs,\n};\n\n",
        1,
    );
    let folder = repository(&[(PROGRAM, &program)]);
    let found = problems(folder.path());
    assert!(found.iter().all(|it| it.contains("caption")), "{found:?}");
}

#[test]
fn a_file_without_a_complete_listing() {
    let page = good(PAGE).replace("main.rs:all}}", "main.rs:main}}");
    let folder = repository(&[(PAGE, &page)]);
    let found = problems(folder.path()).join("\n");
    assert!(
        found.contains("main.rs:1: no page has a complete listing"),
        "{found}"
    );
}

#[test]
fn a_caption_with_another_line() {
    let page = good(PAGE).replace(
        "#L3\">chapters/ch01-echo/src/main.rs</a> <span>lines 3–5",
        "#L3\">chapters/ch01-echo/src/main.rs</a> <span>lines 4–5",
    );
    let folder = repository(&[(PAGE, &page)]);
    assert_eq!(
        problems(folder.path()),
        [
            "book/en/echo.md:6: the caption is not that of the code below it; cargo run -p book -- captions"
        ]
    );
    let source = Source::read(folder.path()).expect("readable");
    let page = source
        .pages
        .iter()
        .find(|it| it.path.ends_with("echo.md"))
        .expect("the page");
    let mended = includes::with_captions(page, folder.path()).expect("readable");
    assert_eq!(mended, good(PAGE), "and they can be written anew");
}

#[test]
fn a_heading_without_an_id() {
    rejects(
        "# Echo {#echo}",
        "# Echo",
        "book/en/echo.md:1: the heading has no id: add {#name}",
    );
}

#[test]
fn an_id_that_is_taken() {
    rejects(
        "# Echo {#echo}",
        "# Echo {#below}",
        "book/en/echo.md:18: the id \"below\" is taken on this page",
    );
}

#[test]
fn a_link_to_no_page() {
    rejects(
        "(#below)",
        "(gone.md)",
        "book/en/echo.md:3: gone.md leads nowhere: there is no book/en/gone.md",
    );
}

#[test]
fn a_link_to_no_heading() {
    rejects(
        "(#below)",
        "(#above)",
        "book/en/echo.md:3: #above leads nowhere: book/en/echo.md has no {#above}",
    );
}

#[test]
fn a_link_to_no_file_of_the_repository() {
    rejects(
        "src/main.rs)",
        "src/lib.rs)",
        "book/en/echo.md:4: ../../chapters/ch01-echo/src/lib.rs leads nowhere: there is no chapters/ch01-echo/src/lib.rs",
    );
}

#[test]
fn a_link_in_html() {
    rejects(
        "An <dfn",
        "<a href=\"gone.md\">An</a> <dfn",
        "book/en/echo.md:3: gone.md leads nowhere: there is no book/en/gone.md",
    );
}

#[test]
fn an_image_without_alternative_text() {
    rejects(
        "![a wave]",
        "![]",
        "book/en/echo.md:26: the image has no alternative text",
    );
    rejects(
        "![a wave](wave.svg)",
        "<img src=\"wave.svg\">",
        "book/en/echo.md:26: the image has no alternative text",
    );
}

#[test]
fn a_figure_without_alternative_text() {
    rejects_file(
        "book/en/wave.svg",
        "<title>a wave</title>",
        "<title></title>",
        "book/en/wave.svg:1: the figure has no alternative text: role=\"img\" and a <title>",
    );
}

#[test]
fn a_figure_with_a_blank_line() {
    rejects_file(
        "book/en/wave.svg",
        "<path",
        "\n<path",
        "book/en/wave.svg:3: a blank line ends the block of HTML that holds the figure",
    );
}

#[test]
fn a_word_of_the_glossary_that_is_never_defined() {
    let glossary = good("book/en/glossary.md").to_string() + "\nbacklog\n: those who wait\n";
    let folder = repository(&[("book/en/glossary.md", &glossary)]);
    assert_eq!(
        problems(folder.path()),
        ["book/en/glossary.md:6: no page defines \"backlog\": <dfn>backlog</dfn>"]
    );
}

#[test]
fn a_definition_that_is_not_in_the_glossary() {
    rejects(
        "what came.",
        "what <dfn>came</dfn>.",
        "book/en/echo.md:3: the glossary has no entry \"came\"",
    );
}

#[test]
fn a_word_of_the_glossary_that_does_not_link_to_its_definition() {
    rejects_file(
        "book/en/glossary.md",
        "(echo.md#def-echo)",
        "(echo.md#echo)",
        "book/en/glossary.md:3: \"echo\" does not link to its definition, book/en/echo.md#def-echo",
    );
}

#[test]
fn a_tag_that_is_not_closed() {
    rejects(
        "An <dfn",
        "<details>\n\nAn <dfn",
        "book/en/echo.md:3: <details> is never closed",
    );
    let folder = repository(&[(PAGE, &good(PAGE).replace("An <dfn", "<details>\n\nAn <dfn"))]);
    let error =
        render::build(folder.path(), &folder.path().join("html")).expect_err("mdBook warns");
    assert!(
        format!("{error:#}").contains("unclosed HTML tag `<details>` found in `echo.md`"),
        "{error:#}"
    );
}

#[test]
fn a_tag_that_ends_nothing() {
    rejects(
        "what came.",
        "what</em> came.",
        "book/en/echo.md:3: </em> ends nothing",
    );
}

#[test]
fn a_page_that_the_table_of_contents_leaves_out() {
    let folder = repository(&[("book/en/more.md", "# More {#more}\n")]);
    assert_eq!(
        problems(folder.path()),
        ["book/en/more.md:1: SUMMARY.md does not name this page"]
    );
}

#[test]
fn what_mdbook_warns_of() {
    let page = good(PAGE).to_string() + "\n[^1]: a footnote that nothing refers to\n";
    let folder = repository(&[(PAGE, &page)]);
    let to = folder.path().join("html");
    let error = render::build(folder.path(), &to).expect_err("a warning is an error");
    let said = format!("{error:#}");
    assert!(
        said.contains("footnote `1` in `echo.md` is defined but not referenced"),
        "{said}"
    );
    fs::write(folder.path().join(PAGE), good(PAGE)).expect("writable");
    render::build(folder.path(), &to).expect("and forgotten with the next build");
}

#[test]
fn commands_that_are_not_run_and_snippets_that_are_not_compiled() {
    let add = |more: &str| {
        let page = good(PAGE).to_string() + more;
        let folder = repository(&[(PAGE, &page)]);
        problems(folder.path()).join("\n")
    };
    assert_eq!(
        add("\n```console\n$ true\n```\n\n```rust\nlet x = 1;\n```\n"),
        ""
    );
    assert_eq!(
        add("\n```sh\n$ true\n```\n"),
        "book/en/echo.md:28: a block with commands is fenced as console, and so is run"
    );
    assert_eq!(
        add("\n```rust,ignore\nlet x = 1;\n```\n"),
        "book/en/echo.md:28: a snippet is fenced as rust, and so is compiled"
    );
    assert_eq!(
        add("\n```\ntext\n```\n"),
        "book/en/echo.md:28: the block of code does not say its language"
    );
}
