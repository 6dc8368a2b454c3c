//! The pages as they are written: Markdown, with the places of everything in it.

use std::fs;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use html5gum::{Token, Tokenizer, emitters::default::DefaultEmitter};
use mdbook_markdown::MarkdownOptions;
use mdbook_markdown::pulldown_cmark::{CodeBlockKind, CowStr, Event, Tag, TagEnd};
use walkdir::WalkDir;

use crate::Problem;

/// The sources of the book, below the root of the repository.
#[derive(Debug)]
pub struct Source {
    /// The root of the repository, which holds `book` and `chapters`.
    pub root: PathBuf,
    /// All pages, by path, with `SUMMARY.md`.
    pub pages: Vec<Page>,
}

/// A page of the book.
#[derive(Debug)]
pub struct Page {
    /// Its path below the root: `book/en/ch01-echo/bytes.md`.
    pub path: PathBuf,
    /// What it says, in Markdown.
    pub text: String,
}

impl Source {
    /// Reads the pages of `book/en`.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(root: &Path) -> Result<Source> {
        let folder = root.join("book/en");
        let mut pages = Vec::new();
        for entry in WalkDir::new(&folder).sort_by_file_name() {
            let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
            if entry.path().extension().is_some_and(|it| it == "md") {
                let path = entry.path();
                let text = fs::read_to_string(path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                let path = path.strip_prefix(root)?.to_path_buf();
                pages.push(Page { path, text });
            }
        }
        Ok(Source {
            root: root.to_path_buf(),
            pages,
        })
    }
}

impl Page {
    /// The number of the line, from 1, in which the byte at `offset` stands.
    #[must_use]
    pub fn line(&self, offset: usize) -> usize {
        1 + self.text[..offset].matches('\n').count()
    }

    /// Where a relative link from this page leads, below the root. `None` if
    /// it leads out of the repository.
    #[must_use]
    pub fn resolve(&self, link: &str) -> Option<PathBuf> {
        let mut path = self.path.parent()?.to_path_buf();
        for part in Path::new(link).components() {
            match part {
                Component::Normal(name) => path.push(name),
                Component::ParentDir if path.pop() => {}
                Component::CurDir => {}
                _ => return None,
            }
        }
        Some(path)
    }

    /// A problem in the line of the byte at `offset`.
    #[must_use]
    pub fn problem(&self, offset: usize, what: impl Into<String>) -> Problem {
        Problem {
            file: self.path.clone(),
            line: self.line(offset),
            what: what.into(),
        }
    }

    /// Finds everything in the page that the checks ask about.
    #[must_use]
    pub fn outline(&self) -> Outline {
        Outliner::new(self).run()
    }
}

/// Something in a page, with the byte at which it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T>(pub usize, pub T);

/// What there is in a page.
#[derive(Debug, Default)]
pub struct Outline {
    /// All that a fragment can name: ids of headings and of elements.
    pub ids: Vec<At<String>>,
    /// The targets of links and images.
    pub links: Vec<At<String>>,
    /// Where headings begin.
    pub headings: Vec<usize>,
    /// The blocks of code, with their info strings.
    pub fences: Vec<Fence>,
    /// The terms that the page defines, `<dfn>`, as they are written.
    pub definitions: Vec<At<String>>,
    /// The titles of its definition lists.
    pub terms: Vec<At<String>>,
    /// What is wrong with its markup.
    pub problems: Vec<Problem>,
}

/// A block of code.
#[derive(Clone, Debug)]
pub struct Fence {
    /// The first word of the info string: `rust`.
    pub language: String,
    /// The others: `ignore`.
    pub attributes: Vec<String>,
    /// The whole block, fences included.
    pub block: Range<usize>,
    /// What stands between the fences.
    pub body: Range<usize>,
}

impl Fence {
    /// Whether the info string has this word after the language.
    #[must_use]
    pub fn has(&self, attribute: &str) -> bool {
        self.attributes.iter().any(|it| it == attribute)
    }
}

/// Elements that have no end tag.
const VOID: [&str; 6] = ["area", "br", "hr", "img", "input", "wbr"];

struct Outliner<'a> {
    page: &'a Page,
    outline: Outline,
    open_tags: Vec<At<String>>,
    /// The text of the definition, term or image that is being read.
    definition: Option<At<String>>,
    term: Option<At<String>>,
    image: Option<At<String>>,
}

impl<'a> Outliner<'a> {
    fn new(page: &'a Page) -> Self {
        Outliner {
            page,
            outline: Outline::default(),
            open_tags: Vec::new(),
            definition: None,
            term: None,
            image: None,
        }
    }

    fn run(mut self) -> Outline {
        let mut options = MarkdownOptions::default();
        options.smart_punctuation = false;
        let parser = mdbook_markdown::new_cmark_parser(&self.page.text, &options);
        let mut html = At(0, String::new());
        for (event, range) in parser.into_offset_iter() {
            match event {
                // A tag may go over several lines, each of which is an event.
                Event::Html(text) => {
                    if html.1.is_empty() {
                        html.0 = range.start;
                    }
                    html.1 += &text;
                }
                event => {
                    if !html.1.is_empty() {
                        self.html(html.0, &html.1);
                        html.1.clear();
                    }
                    self.event(event, range);
                }
            }
        }
        for At(offset, name) in std::mem::take(&mut self.open_tags) {
            self.complain(offset, format!("<{name}> is never closed"));
        }
        self.outline
    }

    fn complain(&mut self, offset: usize, what: impl Into<String>) {
        let problem = self.page.problem(offset, what);
        self.outline.problems.push(problem);
    }

    fn event(&mut self, event: Event, range: Range<usize>) {
        match event {
            Event::InlineHtml(text) => self.html(range.start, &text),
            Event::Text(text) | Event::Code(text) => self.text(&text),
            Event::SoftBreak | Event::HardBreak => self.text(" "),
            Event::Start(Tag::Heading { id, .. }) => {
                self.outline.headings.push(range.start);
                match id {
                    Some(id) => self.id(range.start, id.into_string()),
                    None => self.complain(range.start, "the heading has no id: add {#name}"),
                }
            }
            Event::Start(Tag::Link { dest_url, .. }) => self.link(range.start, dest_url),
            Event::Start(Tag::Image { dest_url, .. }) => {
                self.image = Some(At(range.start, String::new()));
                self.link(range.start, dest_url);
            }
            Event::End(TagEnd::Image) => {
                if let Some(At(offset, alternative)) = self.image.take()
                    && alternative.trim().is_empty()
                {
                    self.complain(offset, "the image has no alternative text");
                }
            }
            Event::Start(Tag::DefinitionListTitle) => {
                self.term = Some(At(range.start, String::new()));
            }
            Event::End(TagEnd::DefinitionListTitle) => self.outline.terms.extend(self.term.take()),
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => self.fence(&info, range),
            _ => {}
        }
    }

    fn text(&mut self, text: &str) {
        let open = [&mut self.definition, &mut self.term, &mut self.image];
        for At(_, collected) in open.into_iter().flatten() {
            *collected += text;
        }
    }

    fn id(&mut self, offset: usize, id: String) {
        if self.outline.ids.iter().any(|At(_, other)| *other == id) {
            self.complain(offset, format!("the id {id:?} is taken on this page"));
        }
        self.outline.ids.push(At(offset, id));
    }

    fn link(&mut self, offset: usize, target: CowStr) {
        self.outline.links.push(At(offset, target.into_string()));
    }

    fn fence(&mut self, info: &str, block: Range<usize>) {
        let mut words = info
            .split([' ', '\t', ','])
            .filter(|it| !it.is_empty())
            .map(str::to_string);
        let text = &self.page.text[block.clone()];
        let body_start = text.find('\n').map_or(text.len(), |it| it + 1);
        let body_end = text.trim_end().rfind('\n').map_or(body_start, |it| it + 1);
        self.outline.fences.push(Fence {
            language: words.next().unwrap_or_default(),
            attributes: words.collect(),
            body: block.start + body_start..block.start + body_end.max(body_start),
            block,
        });
    }

    fn html(&mut self, start: usize, html: &str) {
        let emitter = DefaultEmitter::<usize>::new_with_span();
        for token in Tokenizer::new_with_emitter(html, emitter).flatten() {
            match token {
                Token::StartTag(tag) => {
                    let offset = start + tag.span.start;
                    let name = String::from_utf8_lossy(&tag.name).into_owned();
                    let attribute = |name: &str| {
                        let value = tag.attributes.get(name.as_bytes());
                        value.map(|it| String::from_utf8_lossy(it).into_owned())
                    };
                    if let Some(id) = attribute("id") {
                        self.id(offset, id);
                    }
                    let targets = [attribute("href"), attribute("src")];
                    for target in targets.into_iter().flatten() {
                        self.link(offset, target.into());
                    }
                    if name == "img" && attribute("alt").is_none_or(|it| it.trim().is_empty()) {
                        self.complain(offset, "the image has no alternative text");
                    }
                    if name == "dfn" {
                        self.definition = Some(At(offset, String::new()));
                    }
                    if !tag.self_closing && !VOID.contains(&name.as_str()) {
                        self.open_tags.push(At(offset, name));
                    }
                }
                Token::EndTag(tag) => {
                    let name = String::from_utf8_lossy(&tag.name).into_owned();
                    if name == "dfn" {
                        self.outline.definitions.extend(self.definition.take());
                    }
                    let offset = start + tag.span.start;
                    match self.open_tags.pop() {
                        Some(At(_, open)) if open == name => {}
                        Some(At(opened, open)) => {
                            let line = self.page.line(opened);
                            self.complain(
                                offset,
                                format!(
                                    "</{name}> ends nothing here: <{open}> of line {line} is open"
                                ),
                            );
                            self.open_tags.push(At(opened, open));
                        }
                        None => self.complain(offset, format!("</{name}> ends nothing")),
                    }
                }
                Token::String(text) if self.definition.is_some() => {
                    self.text(&String::from_utf8_lossy(&text));
                }
                _ => {}
            }
        }
    }
}
