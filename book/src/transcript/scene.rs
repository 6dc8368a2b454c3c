//! A scene: the terminals that a section shows, block by block.

use std::ops::Range;

use crate::source::{Fence, Page};

/// The transcripts between two headings. They share a network, in which nothing else runs,
/// and each role is a terminal with a shell.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The page on which it stands.
    pub page: &'a Page,
    /// Its blocks, in the page's order.
    pub blocks: Vec<Block>,
}

/// A block of a transcript: what one terminal shows for a while.
#[derive(Debug)]
pub struct Block {
    /// Which terminal: `server`, `client`, `look`, or the only one.
    pub role: String,
    /// Its lines, with their places in the page.
    pub lines: Vec<(usize, Line)>,
    /// What stands between the fences.
    pub body: Range<usize>,
}

/// A line of a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Typed at the shell's prompt.
    Command(String),
    /// Typed into the running program.
    Input(String),
    /// A key: Ctrl-C, Ctrl-D, Ctrl-Z or Ctrl-\.
    Key(Key),
    /// Printed by a program.
    Output(String),
    /// Any number of lines, which the page leaves out.
    Ellipsis,
}

/// A key that the terminal does not pass on as text (termios(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// SIGINT to the job in the foreground.
    Interrupt,
    /// The end of the input.
    End,
    /// SIGTSTP.
    Stop,
    /// SIGQUIT.
    Quit,
}

impl Key {
    const ALL: [Key; 4] = [Key::Interrupt, Key::End, Key::Stop, Key::Quit];

    /// How a page, and mostly the terminal itself, writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Key::Interrupt => "^C",
            Key::End => "^D",
            Key::Stop => "^Z",
            Key::Quit => "^\\",
        }
    }

    /// What the keyboard sends.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Key::Interrupt => "\x03",
            Key::End => "\x04",
            Key::Stop => "\x1a",
            Key::Quit => "\x1c",
        }
    }
}

/// The sign behind what is typed into a program.
const RETURN: char = '⏎';

impl Line {
    fn parse(text: &str) -> Line {
        if let Some(command) = text.strip_prefix("$ ") {
            Line::Command(command.to_string())
        } else if let Some(input) = text.strip_suffix(RETURN) {
            Line::Input(input.to_string())
        } else if let Some(key) = Key::ALL.into_iter().find(|key| key.name() == text) {
            Line::Key(key)
        } else if text == "..." {
            Line::Ellipsis
        } else {
            Line::Output(text.to_string())
        }
    }

    /// The line as a page shows it.
    #[must_use]
    pub fn show(&self) -> String {
        match self {
            Line::Command(command) => format!("$ {command}"),
            Line::Input(input) => format!("{input}{RETURN}"),
            Line::Key(key) => key.name().to_string(),
            Line::Output(text) => text.clone(),
            Line::Ellipsis => "...".to_string(),
        }
    }

    /// Whether somebody types it.
    #[must_use]
    pub fn is_typed(&self) -> bool {
        matches!(self, Line::Command(_) | Line::Input(_) | Line::Key(_))
    }
}

impl Block {
    fn read(page: &Page, fence: Fence) -> Block {
        let mut offset = fence.body.start;
        let mut lines = Vec::new();
        for text in page.text[fence.body.clone()].lines() {
            lines.push((offset, Line::parse(text)));
            offset += text.len() + 1;
        }
        let role = fence.attributes.into_iter().next().unwrap_or_default();
        Block {
            role,
            lines,
            body: fence.body,
        }
    }
}

impl Scene<'_> {
    /// The scenes of a page.
    #[must_use]
    pub fn of(page: &Page) -> Vec<Scene<'_>> {
        let outline = page.outline();
        let mut scenes: Vec<Scene> = Vec::new();
        let mut section = None;
        for fence in outline.fences {
            if fence.language != "console" {
                continue;
            }
            let heading = outline
                .headings
                .iter()
                .rev()
                .find(|it| **it < fence.block.start);
            if scenes.is_empty() || section != heading.copied() {
                section = heading.copied();
                let blocks = Vec::new();
                scenes.push(Scene { page, blocks });
            }
            if let Some(scene) = scenes.last_mut() {
                scene.blocks.push(Block::read(page, fence));
            }
        }
        scenes
    }

    /// Where the scene begins, for messages.
    #[must_use]
    pub fn start(&self) -> usize {
        self.blocks.first().map_or(0, |block| block.body.start)
    }

    /// The commands of all terminals.
    pub fn commands(&self) -> impl Iterator<Item = &str> {
        let lines = self.blocks.iter().flat_map(|block| &block.lines);
        lines.filter_map(|(_, line)| match line {
            Line::Command(command) => Some(command.as_str()),
            _ => None,
        })
    }
}
