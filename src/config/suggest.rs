//! "did you mean", and lists of names in a sentence.

/// The label for a word that is nearly one of the known ones.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, known).map(|name| format!("did you mean `{name}`?"))
}

/// Whether one may be a misspelling of the other.
pub fn is_near(word: &str, name: &str) -> bool {
    nearest(word, [name]).is_some()
}

fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let near = |name: &&str| {
        let distance = strsim::osa_distance(&lower, &name.to_lowercase());
        // A third of the letters may differ; below that anything resembles anything.
        (distance <= word.chars().count().max(name.len()) / 3).then_some(distance)
    };
    known.into_iter().filter_map(|name| Some((near(&name)?, name))).min_by_key(|(d, _)| *d).map(|(_, name)| name)
}

/// `a`, `b` and `c`.
pub fn list<'a>(names: impl IntoIterator<Item = &'a str>, last: &str) -> String {
    let names: Vec<String> = names.into_iter().map(|n| format!("`{n}`")).collect();
    match names.as_slice() {
        [] => "none".into(),
        [one] => one.clone(),
        [most @ .., end] => format!("{} {last} {end}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let known = ["weight", "endpoints", "tls"];
        assert_eq!(did_you_mean("wieght", known).as_deref(), Some("did you mean `weight`?"));
        assert_eq!(did_you_mean("Endpoint", known).as_deref(), Some("did you mean `endpoints`?"));
        assert_eq!(did_you_mean("colour", known), None);
        assert_eq!(did_you_mean("x", known), None);
        assert_eq!(did_you_mean("v3", ["v1", "v2"]), None, "two letters say too little");
    }

    #[test]
    fn lists_read_like_sentences() {
        assert_eq!(list(["a", "b", "c"], "or"), "`a`, `b` or `c`");
        assert_eq!(list(["a"], "or"), "`a`");
    }
}
