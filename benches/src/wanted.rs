//! What figures are wanted, and whether those of a run are.

/// A bound that a figure should keep to.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    /// No less than this.
    AtLeast(f64),
    /// No more than this.
    AtMost(f64),
}

impl Wanted {
    fn holds(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(bound) => figure >= bound,
            Self::AtMost(bound) => figure <= bound,
        }
    }
}

/// The figures of a run that something is wanted of.
#[derive(Debug, Default)]
pub struct Verdicts(Vec<(&'static str, Option<f64>, Wanted)>);

impl Verdicts {
    /// Adds a figure, or that it was not measured.
    #[must_use]
    pub fn judge(mut self, what: &'static str, figure: Option<f64>, wanted: Wanted) -> Self {
        self.0.push((what, figure, wanted));
        self
    }

    /// A section of Markdown; nothing where nothing was measured.
    #[must_use]
    pub fn section(&self) -> String {
        let mut text = String::new();
        for (what, figure, wanted) in &self.0 {
            let Some(figure) = figure else { continue };
            let word = if wanted.holds(*figure) { "met" } else { "**missed**" };
            let (sign, bound) = match wanted {
                Wanted::AtLeast(bound) => ('≥', bound),
                Wanted::AtMost(bound) => ('≤', bound),
            };
            text.push_str(&format!("| {what} | {figure:.2} | {sign} {bound:.2} | {word} |\n"));
        }
        if text.is_empty() {
            return text;
        }
        format!("\n## Wanted\n\n| what | figure | wanted | |\n|---|--:|--:|---|\n{text}")
    }

    /// What was not measured, or is not as wanted.
    #[must_use]
    pub fn missed(&self) -> Vec<&'static str> {
        let missed = |figure: Option<f64>, wanted: Wanted| !figure.is_some_and(|figure| wanted.holds(figure));
        self.0.iter().filter(|(_, figure, wanted)| missed(*figure, *wanted)).map(|(what, ..)| *what).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Verdicts, Wanted};

    #[test]
    fn what_was_not_measured_is_not_met() {
        let verdicts = Verdicts::default()
            .judge("fast", Some(2.0), Wanted::AtLeast(1.0))
            .judge("small", Some(2.0), Wanted::AtMost(1.0))
            .judge("absent", None, Wanted::AtLeast(1.0));
        assert_eq!(verdicts.missed(), ["small", "absent"]);
        let text = verdicts.section();
        assert!(
            text.contains("| fast | 2.00 | ≥ 1.00 | met |") && text.contains("| small | 2.00 | ≤ 1.00 | **missed** |")
        );
        assert!(!text.contains("absent"));
        assert_eq!(Verdicts::default().judge("absent", None, Wanted::AtMost(1.0)).section(), "");
    }
}
