//! The course of every exercise: question, guess, run, figures, explanation.

use std::io::{self, IsTerminal as _, Write as _};

use bimodal::Mode;
use serde_json::json;

use crate::exercise::{Exercise, Outcome, Result};

/// Guides through one exercise. It waits for a guess where there is a terminal, unless `yes`.
pub(crate) fn give(exercise: &Exercise, mode: Mode, yes: bool, json: bool) -> Result<()> {
    println!("{} (--mode {mode})\n\n{}\n", exercise.name, wrapped(exercise.setting));
    println!("{}", wrapped(exercise.question));
    for (choice, letter) in exercise.choices.iter().zip(LETTERS) {
        println!("  {letter}) {choice}");
    }
    let waits = !yes && io::stdin().is_terminal() && io::stdout().is_terminal();
    let guess = if waits { ask(exercise.choices.len())? } else { None };
    println!("\nIt runs ...\n");
    let outcome = (exercise.run)(mode)?;
    tell(exercise, &outcome, guess);
    if json {
        println!("{}", summary(exercise, mode, &outcome));
    }
    Ok(())
}

const LETTERS: [char; 4] = ['a', 'b', 'c', 'd'];

/// The reader's guess; none where only Enter was pressed, or the input has ended.
fn ask(choices: usize) -> io::Result<Option<usize>> {
    let letters = &LETTERS[..choices];
    loop {
        print!("\nYour guess, a to {} (Enter for none): ", LETTERS[choices - 1]);
        io::stdout().flush()?;
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        let guess = line.trim().to_lowercase();
        let found = letters.iter().position(|letter| guess == letter.to_string());
        if found.is_some() || guess.is_empty() {
            return Ok(found);
        }
    }
}

fn tell(exercise: &Exercise, outcome: &Outcome, guess: Option<usize>) {
    println!("{}", outcome.table);
    let seen = format!("{}) {}", LETTERS[outcome.seen], exercise.choices[outcome.seen]);
    match guess {
        Some(guess) if guess == outcome.seen => println!("You were right. It is {seen}\n"),
        Some(guess) => println!("You said {}. It is {seen}\n", LETTERS[guess]),
        None => println!("It is {seen}\n"),
    }
    if outcome.seen != outcome.expected {
        let usual = LETTERS[outcome.expected];
        println!(
            "{}\n",
            wrapped(&format!("This is not what is usual, which is {usual}). {UNUSUAL}"))
        );
    }
    println!("{}\n", wrapped(&outcome.explanation));
    println!("{}", wrapped(&format!("To try next: {}", outcome.next)));
}

const UNUSUAL: &str = "A machine that is busy with other things, one of another kind, or a build without --release \
                       can hide an effect. What follows explains the usual.";

/// Columns of a line of prose.
const COLUMNS: usize = 90;

/// A text whose lines end between words.
fn wrapped(text: &str) -> String {
    let (mut lines, mut column) = (String::new(), 0);
    for word in text.split_whitespace() {
        let length = word.chars().count();
        let breaks = column + length >= COLUMNS;
        lines.push_str(if column == 0 {
            ""
        } else if breaks {
            "\n"
        } else {
            " "
        });
        column = if breaks { 0 } else { column } + length + 1;
        lines.push_str(word);
    }
    lines
}

fn summary(exercise: &Exercise, mode: Mode, outcome: &Outcome) -> serde_json::Value {
    json!({
        "exercise": exercise.name,
        "mode": mode.to_string(),
        "seen": LETTERS[outcome.seen].to_string(),
        "expected": LETTERS[outcome.expected].to_string(),
        "as_expected": outcome.seen == outcome.expected,
        "figures": outcome.figures,
    })
}
