//! The terminal: a screen of its own that is given back whatever happens, and what comes in: lines, keys, signals.

use std::{
    io::{self, Read as _, Write as _},
    sync::mpsc,
    thread,
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH},
    iterator::Signals,
};

use crate::feed::Feed;

/// A screen of its own, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Begins at the top left; what is left of an old line, or of the old screen, is erased.
const HOME: &str = "\x1b[H";
const END_OF_LINE: &str = "\x1b[K\r\n";
const END_OF_SCREEN: &str = "\x1b[J";

/// Something that came in.
pub(crate) enum Input {
    Line(String),
    Resized,
    Quit,
    Ended,
    Failed(io::Error),
}

/// Reads everything that can come in, each on a thread of its own. Ends when the cluster has ended.
pub(crate) fn inputs(mut feed: Feed) -> io::Result<impl Iterator<Item = Input>> {
    let (sender, inputs) = mpsc::channel();
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM, SIGWINCH])?;
    let (signalled, typed) = (sender.clone(), sender.clone());
    thread::spawn(move || {
        for signal in signals.forever() {
            // Nobody listens any more when the program is about to end; so below.
            let _ = signalled.send(if signal == SIGWINCH { Input::Resized } else { Input::Quit });
        }
    });
    thread::spawn(move || {
        let is_quit = |byte: &io::Result<u8>| matches!(byte, Ok(b'q' | b'Q') | Err(_));
        // The end of the input is no wish to quit.
        if io::stdin().lock().bytes().any(|byte| is_quit(&byte)) {
            let _ = typed.send(Input::Quit);
        }
    });
    thread::spawn(move || {
        loop {
            let input = match feed.next() {
                Ok(Some(line)) => Input::Line(line),
                Ok(None) => Input::Ended,
                Err(error) => Input::Failed(error),
            };
            if sender.send(input).is_err() {
                return;
            }
        }
    });
    Ok(inputs.into_iter())
}

/// The terminal as a screen. Dropping it gives the terminal back as it was.
pub(crate) struct Screen {
    before: Termios,
}

impl Screen {
    pub(crate) fn open() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        // Keys come at once and unseen; Ctrl-C is a signal as ever.
        raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        let screen = Self { before };
        write(ENTER)?;
        Ok(screen)
    }

    /// Columns and rows; 80 and 24 where the terminal does not say.
    pub(crate) fn size(&self) -> (usize, usize) {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (size.ws_col.into(), size.ws_row.into())
            }
            _ => (80, 24),
        }
    }

    pub(crate) fn show(&mut self, lines: &[String]) -> io::Result<()> {
        let lines = lines.join(END_OF_LINE);
        write(&format!("{HOME}{lines}\x1b[K{END_OF_SCREEN}"))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let _ = write(LEAVE);
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
