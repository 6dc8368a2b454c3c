//! Builds the book with mdBook, and makes its warnings errors.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use mdbook_driver::{MDBook, config::Config};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context as LayerContext, Layer, SubscriberExt};

use crate::source::{At, Source};

/// Builds the pages of the repository at `root` into the folder `to`, which is made anew.
///
/// # Errors
/// When mdBook fails or warns; the error names all that it said.
pub fn build(root: &Path, to: &Path) -> Result<()> {
    let book = root.join("book");
    let mut config = Config::from_disk(book.join("book.toml")).context("cannot read book.toml")?;
    config.build.build_dir = to.to_path_buf();
    let warnings = Warnings::collect(|| {
        let book = MDBook::load_with_config(&book, config)?;
        book.build()
    })?;
    if !warnings.is_empty() {
        bail!("mdBook warns:\n{}", warnings.join("\n"));
    }
    copy_linked_files(root, to)
}

/// The files of the repository that pages link to, `../../../chapters/...`, are found beside
/// the sources of the book; a web server, which has no `..` above its root, finds these.
fn copy_linked_files(root: &Path, to: &Path) -> Result<()> {
    for page in Source::read(root)?.pages {
        for At(_, link) in page.outline().links {
            let file = link.split('#').next().unwrap_or_default();
            let Some(path) = page.resolve(file) else {
                continue;
            };
            let from = root.join(&path);
            if path.starts_with("book/en") || !from.is_file() {
                continue;
            }
            let to = to.join(&path);
            let folder = to.parent().context("a file has a folder")?;
            fs::create_dir_all(folder)
                .and_then(|()| fs::copy(&from, &to))
                .with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}

/// What mdBook logs as a warning or an error. Without a subscriber all of it is lost.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    fn collect(build: impl FnOnce() -> Result<()>) -> Result<Vec<String>> {
        let warnings = Warnings::default();
        let subscriber = tracing_subscriber::registry().with(warnings.clone());
        tracing::subscriber::with_default(subscriber, build)?;
        Ok(std::mem::take(&mut *warnings.lock()))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
        // Error is the least of the levels, and trace the greatest.
        if *event.metadata().level() <= Level::WARN {
            let mut message = Message(String::new());
            event.record(&mut message);
            self.lock().push(message.0);
        }
    }
}

/// The text of an event.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
