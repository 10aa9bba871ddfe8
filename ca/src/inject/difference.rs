//! Two texts, and what became of their lines: a unified diff.

/// Lines around a change.
const CONTEXT: usize = 3;
/// Documents have some hundred lines; of larger ones that differ everywhere, all is told as changed.
const MOST_CELLS: usize = 4_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit {
    Keep,
    Remove,
    Add,
}

/// The differences of two texts; empty when there are none.
#[must_use]
pub fn unified(old: &str, new: &str, name: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let edits = edits(&old, &new);
    let mut text = String::new();
    let (mut line_old, mut line_new) = (0, 0);
    let mut places = Vec::with_capacity(edits.len());
    for edit in &edits {
        places.push((*edit, line_old, line_new));
        line_old += usize::from(*edit != Edit::Add);
        line_new += usize::from(*edit != Edit::Remove);
    }
    let mut at = 0;
    while let Some(first) = (at..places.len()).find(|index| is_change(&places, *index)) {
        let mut last = first;
        while let Some(next) =
            (last + 1..places.len().min(last + 2 * CONTEXT + 2)).find(|index| is_change(&places, *index))
        {
            last = next;
        }
        let start = first.saturating_sub(CONTEXT);
        let end = (last + CONTEXT + 1).min(places.len());
        let hunk = places.get(start..end).unwrap_or_default();
        if text.is_empty() {
            text = format!("--- {name}\n+++ {name} (injected)\n");
        }
        text.push_str(&written(hunk, &old, &new));
        at = end.max(last + 1);
    }
    text
}

fn is_change(places: &[(Edit, usize, usize)], index: usize) -> bool {
    places.get(index).is_some_and(|(edit, ..)| *edit != Edit::Keep)
}

fn written(hunk: &[(Edit, usize, usize)], old: &[&str], new: &[&str]) -> String {
    let count = |not: Edit| hunk.iter().filter(|(edit, ..)| *edit != not).count();
    let (olds, news) = (count(Edit::Add), count(Edit::Remove));
    let (from, to) = hunk.first().map_or((0, 0), |(_, from, to)| (*from, *to));
    // An empty side is told by the line before it.
    let start = |at: usize, lines: usize| if lines == 0 { at } else { at + 1 };
    let mut text = format!("@@ -{},{olds} +{},{news} @@\n", start(from, olds), start(to, news));
    for (edit, from, to) in hunk {
        let (mark, line) = match edit {
            Edit::Keep => (' ', old.get(*from)),
            Edit::Remove => ('-', old.get(*from)),
            Edit::Add => ('+', new.get(*to)),
        };
        text.push(mark);
        text.push_str(line.copied().unwrap_or_default());
        text.push('\n');
    }
    text
}

// What both share at the beginning and the end is kept; between, as much as can be.
fn edits(old: &[&str], new: &[&str]) -> Vec<Edit> {
    let before = old.iter().zip(new).take_while(|(one, other)| one == other).count();
    let (old, new) = (old.get(before..).unwrap_or_default(), new.get(before..).unwrap_or_default());
    let after = old.iter().rev().zip(new.iter().rev()).take_while(|(one, other)| one == other).count();
    let old = old.get(..old.len() - after).unwrap_or_default();
    let new = new.get(..new.len() - after).unwrap_or_default();
    let mut edits = vec![Edit::Keep; before];
    edits.extend(between(old, new));
    edits.extend(std::iter::repeat_n(Edit::Keep, after));
    edits
}

// By the longest common subsequence: `longest` holds, for each pair of places, how many lines the rests share.
fn between(old: &[&str], new: &[&str]) -> Vec<Edit> {
    let width = new.len() + 1;
    if old.len().saturating_mul(width) > MOST_CELLS {
        return [vec![Edit::Remove; old.len()], vec![Edit::Add; new.len()]].concat();
    }
    let mut longest = vec![0_u32; (old.len() + 1) * width];
    let at = |longest: &[u32], line: usize, column: usize| {
        longest.get(line * width + column).copied().unwrap_or_default()
    };
    for (line, one) in old.iter().enumerate().rev() {
        for (column, other) in new.iter().enumerate().rev() {
            let value = if one == other {
                at(&longest, line + 1, column + 1) + 1
            } else {
                at(&longest, line + 1, column).max(at(&longest, line, column + 1))
            };
            if let Some(cell) = longest.get_mut(line * width + column) {
                *cell = value;
            }
        }
    }
    let (mut line, mut column, mut edits) = (0, 0, Vec::new());
    while line < old.len() || column < new.len() {
        let keeps = line < old.len() && column < new.len() && old.get(line) == new.get(column);
        let removes = line < old.len()
            && (column == new.len() || at(&longest, line + 1, column) >= at(&longest, line, column + 1));
        let edit = match (keeps, removes) {
            (true, _) => Edit::Keep,
            (false, true) => Edit::Remove,
            (false, false) => Edit::Add,
        };
        edits.push(edit);
        line += usize::from(edit != Edit::Add);
        column += usize::from(edit != Edit::Remove);
    }
    edits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_shows_what_changed_with_what_stands_around_it() {
        let old: String = (1..=20).map(|line| format!("{line}\n")).collect();
        let new = old.replace("\n5\n", "\nfive\n").replace("\n18\n", "\n18\n18a\n");

        assert_eq!(
            unified(&old, &new, "a.yaml"),
            "--- a.yaml\n+++ a.yaml (injected)\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n\
             @@ -16,5 +16,6 @@\n 16\n 17\n 18\n+18a\n 19\n 20\n"
        );
    }

    #[test]
    fn changes_that_are_near_stand_in_one_hunk() {
        let text = unified("a\nb\nc\nd\ne\n", "a\nB\nc\nD\ne\n", "x");

        assert_eq!(text.matches("@@ -").count(), 1);
        assert_eq!(text.lines().skip(3).collect::<Vec<_>>(), [" a", "-b", "+B", " c", "-d", "+D", " e"]);
    }

    #[test]
    fn equal_texts_have_none_and_empty_ones_are_told() {
        assert_eq!(unified("a\n", "a\n", "x"), "");
        assert!(unified("", "a\n", "x").contains("@@ -0,0 +1,1 @@\n+a\n"));
        assert!(unified("a\n", "", "x").contains("@@ -1,1 +0,0 @@\n-a\n"));
    }
}
