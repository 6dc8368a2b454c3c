//! Serves the book with the HTTP server of chapter 3, and builds it anew when a source
//! changes.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use notify::{RecursiveMode, Watcher};
use walkdir::WalkDir;

use crate::render;

/// An editor saves in several steps, which are one change.
const ONE_CHANGE: Duration = Duration::from_millis(200);

/// Where the pages of the repository at `root` are built: where mdBook itself would.
#[must_use]
pub fn destination(root: &Path) -> PathBuf {
    root.join("book/book")
}

/// Builds the book, serves it on `address`, and keeps it fresh until a signal comes or the
/// server ends.
///
/// # Errors
/// When the book or its server cannot be built or started.
pub fn serve(root: &Path, address: &str) -> Result<ExitCode> {
    let open_pages = OpenPages::listen().context("cannot listen for open pages")?;
    publish(root, &open_pages)?;
    let mut server = start_server(root, address)?;
    let mut said = BufReader::new(server.stdout.take().context("stdout is piped")?);
    let server = Arc::new(Mutex::new(server));
    let ending = Arc::clone(&server);
    ctrlc::set_handler(move || {
        let _ = lock(&ending).kill();
    })
    .context("cannot catch signals")?;
    let _watching = watch(root, open_pages)?;

    // Now that signals and changes are heard, whoever reads this line may count on it.
    let mut first = String::new();
    said.read_line(&mut first)?;
    if let Some(local) = first.trim_end().strip_prefix("Listening on ") {
        let _ = writeln!(
            io::stdout(),
            "The book is at http://{local} (Ctrl-C ends it)"
        );
    }
    // What it says of its clients is of no interest; the end of it is the end of the server.
    let _ = io::copy(&mut said, &mut io::sink());
    let status = lock(&server).wait()?;
    Ok(exit_code(status))
}

/// Builds the pages beside the old ones, and puts them in their place: a page that is asked
/// for meanwhile is there, and a book with a mistake replaces nothing.
fn publish(root: &Path, open_pages: &OpenPages) -> Result<()> {
    let to = destination(root);
    let (next, old) = (to.with_extension("next"), to.with_extension("old"));
    render::build(root, &next)?;
    open_pages.join_script(&next)?;
    let replaced = || {
        // There may be one from a time when somebody ended us right here.
        if old.exists() {
            fs::remove_dir_all(&old)?;
        }
        if to.exists() {
            fs::rename(&to, &old)?;
        }
        fs::rename(&next, &to)?;
        if old.exists() {
            fs::remove_dir_all(&old)?;
        }
        io::Result::Ok(())
    };
    replaced().with_context(|| format!("cannot replace {}", to.display()))?;
    open_pages.renew();
    Ok(())
}

/// Builds and starts chapter 3's HTTP server. It ends when this process does.
fn start_server(root: &Path, address: &str) -> Result<Child> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args([
            "run",
            "--quiet",
            "--package",
            "ch03-reactor",
            "--bin",
            "reactor-http",
        ])
        .arg("--manifest-path")
        .arg(crate::repository().join("Cargo.toml"))
        .args(["--", "--listen", address])
        .arg(destination(root))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt;
        // SAFETY: prctl(2) is a system call, and nothing else happens between fork and exec.
        unsafe {
            command.pre_exec(|| {
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::SIGKILL)?;
                Ok(())
            })
        };
    }
    command.spawn().context("cannot run cargo")
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|it| u8::try_from(it).ok());
    code.map_or(ExitCode::SUCCESS, ExitCode::from) // killed, by Ctrl-C or by us
}

/// Builds the book anew whenever a source changes. What is wrong then is told, and the old
/// pages stay.
fn watch(root: &Path, open_pages: OpenPages) -> Result<impl Sized> {
    let sources = [
        root.join("book/en"),
        root.join("book/theme"),
        root.join("chapters"),
    ];
    let book = root.join("book/book.toml");
    let root = root.to_path_buf();
    let (sender, changes) = mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Not when somebody reads a source: a build does.
        if event.is_ok_and(|it| !it.kind.is_access()) {
            let _ = sender.send(());
        }
    })?;
    thread::spawn(move || {
        while changes.recv().is_ok() {
            while changes.recv_timeout(ONE_CHANGE).is_ok() {}
            let _ = match publish(&root, &open_pages) {
                Ok(()) => writeln!(io::stdout(), "Built again"),
                Err(error) => writeln!(io::stderr(), "The old pages stay: {error:#}"),
            };
        }
    });
    for source in sources.iter().filter(|it| it.exists()) {
        watcher.watch(source, RecursiveMode::Recursive)?;
    }
    watcher.watch(&book, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// The pages that are open in a browser. Each holds a request open, and learns from its
/// answer that there is a new build: nobody polls.
#[derive(Clone)]
struct OpenPages {
    address: SocketAddr,
    builds: Arc<(Mutex<u64>, Condvar)>,
}

impl OpenPages {
    fn listen() -> io::Result<OpenPages> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let pages = OpenPages {
            address: listener.local_addr()?,
            builds: Arc::default(),
        };
        let shared = pages.clone();
        thread::spawn(move || {
            // A thread each, as in chapter 2: they are few, and sleep.
            for page in listener.incoming().flatten() {
                let shared = shared.clone();
                thread::spawn(move || shared.answer(&page));
            }
        });
        Ok(pages)
    }

    /// Answers a page when there is a build that it does not show.
    fn answer(&self, mut page: &TcpStream) -> io::Result<()> {
        let mut lines = BufReader::new(page).lines();
        let request = lines.next().transpose()?.unwrap_or_default();
        while lines.next().transpose()?.is_some_and(|it| !it.is_empty()) {}
        let (builds, renewed) = &*self.builds;
        let waiting = renewed.wait_while(lock(builds), |build| {
            request.starts_with(&format!("GET /{build} "))
        });
        drop(waiting);
        page.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
    }

    /// Says that there is a new build.
    fn renew(&self) {
        *lock(&self.builds.0) += 1;
        self.builds.1.notify_all();
    }

    /// Adds to each page of the coming build what waits for the one after it.
    fn join_script(&self, folder: &Path) -> Result<()> {
        let (build, port) = (*lock(&self.builds.0) + 1, self.address.port());
        let script = format!(
            "<script>fetch(\"http://127.0.0.1:{port}/{build}\", {{mode: \"no-cors\"}})\
             .then(() => location.reload(), () => {{}})</script></body>"
        );
        for entry in WalkDir::new(folder) {
            let path = entry.context("cannot list the pages")?.into_path();
            if path.extension().is_some_and(|it| it == "html") {
                let page = fs::read_to_string(&path)?;
                ensure!(page.contains("<html"), "{} is no page", path.display());
                fs::write(&path, page.replacen("</body>", &script, 1))?;
            }
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
