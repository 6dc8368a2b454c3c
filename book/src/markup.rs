//! What must hold of the pages' markup: headings, links, images, tags, terms and figures.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use walkdir::WalkDir;

use crate::Problem;
use crate::source::{At, Outline, Page, Source};

const SUMMARY: &str = "book/en/SUMMARY.md";
const GLOSSARY: &str = "book/en/glossary.md";

/// Checks all pages, and the figures.
///
/// # Errors
/// When a figure cannot be read.
pub fn check(source: &Source) -> Result<Vec<Problem>> {
    let outlines: Vec<(&Page, Outline)> = source
        .pages
        .iter()
        .map(|page| (page, page.outline()))
        .collect();
    let ids: HashMap<&Path, Vec<&str>> = outlines
        .iter()
        .map(|(page, outline)| {
            let ids = outline.ids.iter().map(|At(_, id)| id.as_str());
            (page.path.as_path(), ids.collect())
        })
        .collect();

    let mut problems = Vec::new();
    for (page, outline) in &outlines {
        // mdBook's table of contents has headings that are no headings of a page.
        let is_summary = page.path == Path::new(SUMMARY);
        let kept = outline.problems.iter().filter(|_| !is_summary);
        problems.extend(kept.cloned());
        problems.extend(links(page, outline, &source.root, &ids));
        problems.extend(fences(page, outline));
    }
    problems.extend(unlisted(&outlines));
    problems.extend(glossary(&outlines));
    problems.extend(figures(&source.root)?);
    Ok(problems)
}

/// Links must lead to a page, a heading, or a file of the repository.
fn links(
    page: &Page,
    outline: &Outline,
    root: &Path,
    ids: &HashMap<&Path, Vec<&str>>,
) -> Vec<Problem> {
    let broken = outline.links.iter().filter_map(|At(offset, link)| {
        if link.starts_with("https://") || link.starts_with("http://") {
            return None;
        }
        let (file, fragment) = match link.split_once('#') {
            Some((file, fragment)) => (file, Some(fragment)),
            None => (link.as_str(), None),
        };
        let Some(target) = (if file.is_empty() {
            Some(page.path.clone())
        } else {
            page.resolve(file)
        }) else {
            return Some(page.problem(*offset, format!("{link} leads out of the repository")));
        };
        let Ok(metadata) = root.join(&target).metadata() else {
            return Some(page.problem(
                *offset,
                format!("{link} leads nowhere: there is no {}", target.display()),
            ));
        };
        let fragment = fragment?;
        match ids.get(target.as_path()) {
            Some(ids) if ids.contains(&fragment) => None,
            Some(_) => Some(page.problem(
                *offset,
                format!(
                    "{link} leads nowhere: {} has no {{#{fragment}}}",
                    target.display()
                ),
            )),
            // A line of a source file; the captions are compared with the files elsewhere.
            None if metadata.is_file() && fragment.starts_with('L') => None,
            None => Some(page.problem(*offset, format!("{link} names a part of what is no page"))),
        }
    });
    broken.collect()
}

/// A command that is shown is a command that is run; a snippet that is shown is compiled.
fn fences(page: &Page, outline: &Outline) -> Vec<Problem> {
    let mut problems = Vec::new();
    for fence in &outline.fences {
        let body = &page.text[fence.body.clone()];
        let includes = body.contains("{{#include");
        let what = match fence.language.as_str() {
            "" => "the block of code does not say its language",
            "console" => continue,
            _ if body.lines().any(|line| line.starts_with("$ ")) => {
                "a block with commands is fenced as console, and so is run"
            }
            "rust" if includes && !fence.has("ignore") => {
                "included code is fenced as rust,ignore: it is compiled in its chapter"
            }
            "rust" if !includes && fence.has("ignore") => {
                "a snippet is fenced as rust, and so is compiled"
            }
            _ => continue,
        };
        problems.push(page.problem(fence.block.start, what));
    }
    problems
}

/// mdBook renders only what the table of contents names.
fn unlisted(outlines: &[(&Page, Outline)]) -> Vec<Problem> {
    let Some((summary, outline)) = outlines
        .iter()
        .find(|(page, _)| page.path == Path::new(SUMMARY))
    else {
        return Vec::new();
    };
    let listed: Vec<PathBuf> = outline
        .links
        .iter()
        .filter_map(|At(_, link)| summary.resolve(link))
        .collect();
    let pages = outlines.iter().map(|(page, _)| page);
    pages
        .filter(|page| page.path != summary.path && !listed.contains(&page.path))
        .map(|page| page.problem(0, "SUMMARY.md does not name this page"))
        .collect()
}

/// Every word of the glossary is defined on a page, to which its entry links, and every
/// definition has its entry.
fn glossary(outlines: &[(&Page, Outline)]) -> Vec<Problem> {
    let Some((glossary, entries)) = outlines
        .iter()
        .find(|(page, _)| page.path == Path::new(GLOSSARY))
    else {
        return Vec::new();
    };
    let mut problems = Vec::new();
    let definitions: Vec<(&Page, &Outline, &At<String>)> = outlines
        .iter()
        .flat_map(|(page, outline)| {
            outline
                .definitions
                .iter()
                .map(move |it| (*page, outline, it))
        })
        .collect();
    for At(offset, term) in &entries.terms {
        let defined = definitions
            .iter()
            .find(|(.., At(_, it))| same_term(it, term));
        let Some((page, outline, At(at, _))) = defined else {
            problems.push(glossary.problem(
                *offset,
                format!("no page defines {term:?}: <dfn>{term}</dfn>"),
            ));
            continue;
        };
        let id = outline.ids.iter().find(|At(it, _)| it == at);
        let fragment = id.map(|At(_, id)| id.as_str());
        // The entry goes on to the next one, or to the end of the page.
        let end = entries
            .terms
            .iter()
            .map(|At(it, _)| *it)
            .find(|it| it > offset);
        let entry = *offset..end.unwrap_or(glossary.text.len());
        let mut links = entries.links.iter().filter(|At(it, _)| entry.contains(it));
        let leads_there = links.any(|At(_, link)| {
            let (file, to) = link.split_once('#').unwrap_or((link, ""));
            glossary.resolve(file).as_deref() == Some(&page.path) && Some(to) == fragment
        });
        if !leads_there {
            let (path, fragment) = (page.path.display(), fragment.unwrap_or_default());
            problems.push(glossary.problem(
                *offset,
                format!("{term:?} does not link to its definition, {path}#{fragment}"),
            ));
        }
    }
    for (page, _, At(offset, term)) in definitions {
        if !entries.terms.iter().any(|At(_, it)| same_term(it, term)) {
            problems.push(page.problem(*offset, format!("the glossary has no entry {term:?}")));
        }
    }
    problems
}

/// Whether two words are one term: "Specimens" is the plural of "specimen".
fn same_term(one: &str, other: &str) -> bool {
    let singular = |it: &str| it.trim().trim_end_matches('s').to_lowercase();
    singular(one) == singular(other)
}

/// A figure says in words what it shows, and is one block of HTML where it is included.
fn figures(root: &Path) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    for entry in WalkDir::new(root.join("book/en")).sort_by_file_name() {
        let entry = entry.context("cannot list the figures")?;
        if entry.path().extension().is_none_or(|it| it != "svg") {
            continue;
        }
        let text = fs::read_to_string(entry.path())
            .with_context(|| format!("cannot read {}", entry.path().display()))?;
        let path = entry.path().strip_prefix(root)?.to_path_buf();
        let figure = Page { path, text };
        if let Some((number, _)) = (1..)
            .zip(figure.text.lines())
            .find(|(_, it)| it.trim().is_empty())
        {
            problems.push(Problem {
                file: figure.path.clone(),
                line: number,
                what: "a blank line ends the block of HTML that holds the figure".into(),
            });
        }
        let title = figure
            .text
            .split_once("<title")
            .and_then(|(_, it)| it.split_once('>'));
        let words = title
            .and_then(|(_, it)| it.split_once("</title>"))
            .map(|(it, _)| it.trim());
        if words.is_none_or(str::is_empty) || !figure.text.contains("role=\"img\"") {
            problems.push(figure.problem(
                0,
                "the figure has no alternative text: role=\"img\" and a <title>",
            ));
        }
        problems.extend(figure.outline().problems);
    }
    Ok(problems)
}
