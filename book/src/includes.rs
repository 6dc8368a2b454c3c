//! The code that the pages include: that it is there, that every line of it is shown, and
//! where it stands in the repository.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context, Result};
use regex::Regex;
use walkdir::WalkDir;

use crate::Problem;
use crate::source::{Fence, Page, Source};

/// What mdBook replaces, unless a backslash stands before it.
static INCLUDE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\\?\{\{\s*#(include|rustdoc_include|playground)\s+([^}]*?)\s*\}\}").expect("valid")
});
static ANCHOR: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"ANCHOR(_END)?:\s*([\w_-]+)").expect("valid"));

/// A piece of a file on a page.
#[derive(Debug)]
pub(crate) struct Include {
    /// Where it stands in the page.
    pub(crate) offset: usize,
    /// The file, below the root of the repository.
    pub(crate) file: PathBuf,
    /// The numbers of the lines that are shown, from 1.
    pub(crate) lines: Vec<usize>,
}

/// Reads the includes of `page`, and tells of those that show nothing.
pub(crate) fn of(page: &Page, root: &Path) -> (Vec<Include>, Vec<Problem>) {
    let (mut includes, mut problems) = (Vec::new(), Vec::new());
    for found in INCLUDE.captures_iter(&page.text) {
        let whole = found.get(0).expect("group 0");
        if whole.as_str().starts_with('\\') {
            continue;
        }
        match read(page, root, whole.start(), &found[2]) {
            Ok(include) => includes.push(include),
            Err(what) => problems.push(page.problem(whole.start(), what)),
        }
    }
    (includes, problems)
}

fn read(page: &Page, root: &Path, offset: usize, target: &str) -> Result<Include, String> {
    let (name, part) = target.split_once(':').unwrap_or((target, ""));
    let file = page
        .resolve(name)
        .ok_or_else(|| format!("{name} is outside of the repository"))?;
    let text = fs::read_to_string(root.join(&file))
        .map_err(|error| format!("cannot include {}: {error}", file.display()))?;
    let lines: Vec<usize> = match part {
        "" => (1..=text.lines().count()).collect(),
        anchor => anchored(&text, anchor).ok_or_else(|| {
            format!(
                "{} has no anchor {anchor:?}, or it is not closed",
                file.display()
            )
        })?,
    };
    let has_text = |number: &usize| !text.lines().nth(number - 1).unwrap_or("").trim().is_empty();
    if !lines.iter().any(has_text) {
        return Err(format!("{target} shows nothing: it is empty"));
    }
    Ok(Include {
        offset,
        file,
        lines,
    })
}

/// The numbers of the lines between the marks of `anchor`, without other anchors' marks.
fn anchored(text: &str, anchor: &str) -> Option<Vec<usize>> {
    let mut lines = None;
    for (number, line) in (1..).zip(text.lines()) {
        let mark = ANCHOR.captures(line);
        match (&mut lines, mark) {
            (None, Some(mark)) if mark.get(1).is_none() && &mark[2] == anchor => {
                lines = Some(Vec::new());
            }
            (Some(_), Some(mark)) if mark.get(1).is_some() && &mark[2] == anchor => return lines,
            (Some(lines), None) => lines.push(number),
            _ => {}
        }
    }
    None
}

/// Checks that all includes are there, and that every line of every source file of the
/// chapters is shown by a step, and every file whole.
///
/// # Errors
/// When a source file cannot be read.
pub fn check(source: &Source) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    let mut shown: BTreeMap<PathBuf, Shown> = BTreeMap::new();
    for file in source_files(&source.root)? {
        shown.insert(file.clone(), Shown::nothing_of(&source.root, &file)?);
    }
    for page in &source.pages {
        let (includes, unread) = of(page, &source.root);
        problems.extend(unread);
        for include in includes {
            if let Some(shown) = shown.get_mut(&include.file) {
                shown.add(&include);
            }
        }
        problems.extend(wrong_caption(page, &with_captions(page, &source.root)?));
    }
    for (file, shown) in shown {
        problems.extend(shown.missing().into_iter().map(|(line, what)| Problem {
            file: file.clone(),
            line,
            what,
        }));
    }
    Ok(problems)
}

/// The source files of the chapters' programs.
fn source_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in WalkDir::new(root.join("chapters")).sort_by_file_name() {
        let entry = entry.context("cannot list the chapters")?;
        let path = entry.path().strip_prefix(root)?;
        let in_src = path
            .components()
            .nth(2)
            .is_some_and(|it| it.as_os_str() == "src");
        if in_src && path.extension().is_some_and(|it| it == "rs") {
            files.push(path.to_path_buf());
        }
    }
    Ok(files)
}

/// How much of a file the book shows.
struct Shown {
    text: String,
    in_steps: BTreeSet<usize>,
    whole: bool,
}

impl Shown {
    fn nothing_of(root: &Path, file: &Path) -> Result<Shown> {
        let text = fs::read_to_string(root.join(file))
            .with_context(|| format!("cannot read {}", file.display()))?;
        Ok(Shown {
            text,
            in_steps: BTreeSet::new(),
            whole: false,
        })
    }

    fn add(&mut self, include: &Include) {
        if is_whole(&self.text, &include.lines) {
            self.whole = true; // the complete listing explains nothing
        } else {
            self.in_steps.extend(&include.lines);
        }
    }

    /// What the book should show of the file, and does not; lines that follow each other are
    /// one problem.
    fn missing(&self) -> Vec<(usize, String)> {
        let mut missing = Vec::new();
        if !self.whole {
            missing.push((1, "no page has a complete listing of this file".to_string()));
        }
        let mut last = None;
        for (number, line) in self.explained() {
            let shown = self.in_steps.contains(&number);
            if !shown && last != Some(number - 1) {
                let line = line.trim();
                missing.push((
                    number,
                    format!("no step of the book shows this line: {line}"),
                ));
            }
            last = (!shown).then_some(number);
        }
        missing
    }

    /// The lines that a step must show: not blank ones, attributes and imports.
    fn explained(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut in_use = false;
        code(&self.text).filter(move |(_, line)| {
            let line = line.trim();
            in_use |= line.starts_with("use ") || line.starts_with("pub use ");
            let free =
                in_use || line.is_empty() || line.starts_with("#[") || line.starts_with("#![");
            in_use &= !line.ends_with(';');
            !free
        })
    }
}

/// The numbered lines of a file that a listing shows: all but the marks of anchors.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..)
        .zip(text.lines())
        .filter(|(_, line)| !ANCHOR.is_match(line))
}

/// Whether these lines are the whole file.
fn is_whole(text: &str, lines: &[usize]) -> bool {
    code(text).all(|(number, _)| lines.contains(&number))
}

/// The first line in which a page and its text with right captions differ.
fn wrong_caption(page: &Page, right: &str) -> Option<Problem> {
    let same = page
        .text
        .lines()
        .zip(right.lines())
        .take_while(|(is, should)| is == should);
    let line = same.count() + 1;
    (page.text != right).then(|| Problem {
        file: page.path.clone(),
        line,
        what: "the caption is not that of the code below it; cargo run -p book -- captions".into(),
    })
}

/// Writes above each block of included code where it stands: the file, the lines and the
/// function, as a link to the file. Returns the page's new text.
///
/// # Errors
/// When an included file cannot be read.
pub fn with_captions(page: &Page, root: &Path) -> Result<String> {
    let (includes, _) = of(page, root);
    let mut text = String::with_capacity(page.text.len());
    let mut copied = 0;
    for fence in page.outline().fences {
        let inside: Vec<&Include> = includes
            .iter()
            .filter(|it| fence.body.contains(&it.offset))
            .collect();
        let Some(caption) = caption(page, root, &fence, &inside)? else {
            continue;
        };
        let before = &page.text[copied..fence.block.start];
        text += match before.trim_end().rsplit_once('\n') {
            Some((rest, last)) if is_caption(last) => rest.trim_end(),
            _ => before.trim_end(),
        };
        text += &format!("\n\n{caption}\n\n");
        copied = fence.block.start;
    }
    text += &page.text[copied..];
    Ok(text)
}

fn is_caption(line: &str) -> bool {
    line.starts_with("<p class=\"step\">")
}

/// The caption of a block of code that comes from the chapters.
fn caption(
    page: &Page,
    root: &Path,
    fence: &Fence,
    includes: &[&Include],
) -> Result<Option<String>> {
    let Some(first) = includes.first() else {
        return Ok(None);
    };
    if !first.file.starts_with("chapters") || fence.language != "rust" {
        return Ok(None);
    }
    let path = root.join(&first.file);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let ends = |include: &&Include| Some((*include.lines.first()?, *include.lines.last()?));
    let ranges: Vec<(usize, usize)> = includes.iter().filter_map(ends).collect();
    let start = ranges.first().map_or(1, |(start, _)| *start);
    let place = match ranges[..] {
        [_] if is_whole(&text, &first.lines) => "the whole file".to_string(),
        [(start, end)] if start == end => format!("line {start}"),
        _ => {
            let ranges = ranges.iter().map(|(start, end)| format!("{start}–{end}"));
            format!("lines {}", ranges.collect::<Vec<_>>().join(", "))
        }
    };
    let within =
        enclosing(&text, start).map_or(String::new(), |it| format!(", in <code>{it}</code>"));
    let file = first.file.display();
    let up = "../".repeat(page.path.components().count() - 1);
    Ok(Some(format!(
        "<p class=\"step\"><a href=\"{up}{file}#L{start}\">{file}</a> <span>{place}{within}</span></p>"
    )))
}

/// The function or type around a line, by rustfmt's indentation.
fn enclosing(text: &str, line: usize) -> Option<String> {
    static ITEM: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^\s*(?:pub(?:\(\w+\))? )?(?:const |unsafe |extern \x22C\x22 )*(fn|struct|enum|trait|impl(?:<[^{]*?>)?) ([^({]+)")
            .expect("valid")
    });
    let depth = |it: &str| it.len() - it.trim_start().len();
    let lines: Vec<&str> = text.lines().collect();
    let mut limit = depth(lines.get(line - 1)?);
    for above in lines[..line - 1].iter().rev() {
        if limit == 0 {
            return None;
        }
        if above.trim().is_empty() || depth(above) >= limit {
            continue;
        }
        limit = depth(above);
        if let Some(item) = ITEM.captures(above) {
            // An impl is named with its types, all else without its parameters.
            let (kind, name) = match &item[1] {
                kind if kind.starts_with("impl") => ("impl", &item[2]),
                kind => (kind, item[2].split(['<', ';']).next().unwrap_or_default()),
            };
            let name = name.trim().replace('<', "&lt;").replace('>', "&gt;");
            return Some(format!("{kind} {name}"));
        }
    }
    None
}
