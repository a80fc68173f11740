//! The words that programs name losses, errors and scores by, and how they write
//! them: `mAP50`, `acc1`, `IoU`, `valloss`, `ep_rew_mean`.
//!
//! A word alone decides little: `map_size` is no precision and `kl_coef` no loss.
//! What a name says of a setting or of a spread is never taken for a measure.

use super::Role;
use super::name::words;

pub(super) const VALIDATION: [&str; 10] =
    ["val", "valid", "validation", "eval", "evaluation", "dev", "test", "heldout", "holdout", "tel"];
pub(super) const TRAIN: [&str; 4] = ["train", "training", "tr", "trl"];

const LOSS: [&str; 21] = [
    "loss",
    "losses",
    "nll",
    "ce",
    "bce",
    "xent",
    "crossentropy",
    "mse",
    "mae",
    "rmse",
    "kl",
    "perplexity",
    "ppl",
    "bpc",
    "bpb",
    "bpd",
    "cost",
    "logloss",
    // llm.c's training loss and test loss.
    "trl",
    "tel",
    "kld",
];
const ERROR: [&str; 25] = [
    "error",
    "err",
    "wer",
    "cer",
    "ter",
    "der",
    "eer",
    "fid",
    "kid",
    "fvd",
    "fad",
    "lpips",
    "mape",
    "smape",
    "mase",
    "rmsle",
    "misclassification",
    "hamming",
    "chamfer",
    "hausdorff",
    "hd95",
    "epe",
    "ece",
    "brier",
    "regret",
];
/// Scores that have no end, or another one.
const OPEN_SCORE: [&str; 31] = [
    "reward",
    "rewards",
    "rew",
    "return",
    "returns",
    "score",
    "scores",
    "psnr",
    "ssim",
    "r2",
    "elbo",
    "mcc",
    "matthews",
    "pearson",
    "pearsonr",
    "spearman",
    "spearmanr",
    "kendall",
    "kendalltau",
    "kappa",
    "cider",
    "loglikelihood",
    "likelihood",
    "nmi",
    "ari",
    "silhouette",
    "concordance",
    "elo",
    "pesq",
    "stoi",
    "fitness",
];
/// Scores that are parts of a whole: they end at 1, or at 100 as percentages.
const SHARE: [&str; 42] = [
    "acc",
    "accuracy",
    "accuracies",
    "f1",
    "auc",
    "auroc",
    "auprc",
    "aucpr",
    "ap",
    "map",
    "iou",
    "miou",
    "jaccard",
    "dice",
    "bleu",
    "sacrebleu",
    "rouge",
    "rougel",
    "meteor",
    "chrf",
    "prec",
    "precision",
    "recall",
    "top1",
    "top5",
    "mrr",
    "ndcg",
    "success",
    "winrate",
    "sensitivity",
    "specificity",
    "em",
    "mmlu",
    "hellaswag",
    "winogrande",
    "gsm8k",
    "humaneval",
    "mbpp",
    "piqa",
    "boolq",
    "truthfulqa",
    "fscore",
];
/// Two words that together are a score.
const SHARES_OF_TWO: [(&str, &str); 6] = [
    ("success", "rate"),
    ("win", "rate"),
    ("solve", "rate"),
    ("pass", "rate"),
    ("hit", "rate"),
    ("exact", "match"),
];
const SCORES_OF_TWO: [(&str, &str); 3] = [("cosine", "sim"), ("cosine", "similarity"), ("log", "likelihood")];
/// What is better the higher it is, and is trained on by its opposite.
const NEGATED: [&str; 9] =
    ["elbo", "cosine", "likelihood", "reward", "return", "pearson", "spearman", "kendall", "ssim"];

/// A name that ends so tells of a setting, a spread or a count.
const SETTING: [&str; 46] = [
    "size",
    "weight",
    "weights",
    "coef",
    "coefs",
    "coeff",
    "coeffs",
    "coefficient",
    "lambda",
    "beta",
    "threshold",
    "thresh",
    "thr",
    "count",
    "counts",
    "num",
    "factor",
    "scale",
    "range",
    "bins",
    "target",
    "interval",
    "every",
    "patience",
    "version",
    "id",
    "idx",
    "index",
    "code",
    "status",
    "std",
    "stddev",
    "stderr",
    "sem",
    "var",
    "variance",
    "usd",
    "hour",
    "time",
    "ms",
    "seconds",
    "runtime",
    "values",
    "clipfrac",
    "fraction",
    "frac",
];
/// Maps that are no mean average precision.
const MAPS: [&str; 9] =
    ["attention", "attn", "feature", "feat", "heat", "hash", "saliency", "activation", "density"];

/// Parts of an objective, and losses that play against each other.
const PART: [&str; 37] = [
    "entropy",
    "ent",
    "kl",
    "kld",
    "policy",
    "pg",
    "vf",
    "qf",
    "critic",
    "critics",
    "actor",
    "alpha",
    "commit",
    "commitment",
    "codebook",
    "vq",
    "reg",
    "regularization",
    "regularisation",
    "regularizer",
    "gen",
    "disc",
    "generator",
    "discriminator",
    "adv",
    "adversarial",
    "gan",
    "aux",
    "auxiliary",
    "balance",
    "balancing",
    "router",
    "moe",
    "approxkl",
    "kldiv",
    "penalty",
    "gp",
];
/// The same, where they stand right beside `loss` or `err`.
const PART_BESIDE: [&str; 10] = ["g", "d", "v", "q", "q1", "q2", "z", "pi", "value", "temperature"];

/// A word without the digits it ends in: `acc1`, `map50`.
fn bare(word: &str) -> &str {
    word.trim_end_matches(|c: char| c.is_ascii_digit())
}

/// Whether a word is one of these, perhaps numbered.
pub(super) fn is_of(word: &str, list: &[&str]) -> bool {
    list.contains(&word) || list.contains(&bare(word))
}

fn is_measure(word: &str) -> bool {
    is_of(word, &LOSS) || is_of(word, &ERROR) || is_of(word, &OPEN_SCORE) || is_of(word, &SHARE)
}

/// The words of a name, those that are written together taken apart and those
/// that capitals cut in two put together.
pub(super) fn measured(name: &str) -> Vec<String> {
    let segments = name.split(|c: char| !c.is_alphanumeric()).filter(|s| !s.is_empty());
    segments.flat_map(of_segment).collect()
}

fn of_segment(segment: &str) -> Vec<String> {
    let whole = segment.to_lowercase();
    if segment.ends_with("IoU") || segment.ends_with("IOU") {
        return vec!["iou".to_owned()];
    }
    // COCO's `APs`, `APm`, `APl`.
    if matches!(segment, "APs" | "APm" | "APl") {
        return vec!["ap".to_owned(), whole];
    }
    // In small letters these two are other words.
    let upper = segment.chars().all(|c| !c.is_lowercase());
    if is_measure(&whole) && (upper || bare(&whole) != "ap") {
        return vec![whole];
    }
    if segment == "IS" {
        return vec!["inception".to_owned(), "score".to_owned()];
    }
    words(segment).iter().flat_map(|word| apart(word)).filter(|word| word != "ap").collect()
}

/// `valloss`, `testacc`, `totalloss`, `losstrain`.
fn apart(word: &str) -> Vec<String> {
    let two = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
    if is_measure(word) {
        return vec![word.to_owned()];
    }
    let splits = || VALIDATION.iter().chain(&TRAIN).filter(|split| split.len() > 2);
    let glued = |rest: &&str| rest.len() > 2 && is_measure(rest);
    if let Some((split, rest)) = splits().find_map(|s| Some((s, word.strip_prefix(s).filter(glued)?))) {
        return two(split, rest);
    }
    if let Some((split, rest)) = splits().find_map(|s| Some((s, word.strip_suffix(s).filter(glued)?))) {
        return two(rest, split);
    }
    for end in ["loss", "accuracy"] {
        match word.strip_suffix(end) {
            Some("v") => return two("val", end),
            Some(rest) if !rest.is_empty() => return two(rest, end),
            _ => {}
        }
    }
    vec![word.to_owned()]
}

/// Two words that follow one another.
fn beside<'a>(words: &'a [String], pairs: &[(&str, &str)]) -> Option<(&'a str, &'a str)> {
    words.windows(2).map(|w| (w[0].as_str(), w[1].as_str())).find(|pair| pairs.contains(pair))
}

fn joined((a, b): (&str, &str)) -> String {
    format!("{a} {b}")
}

/// The word by which a score is a part of a whole.
pub(super) fn share(words: &[String]) -> Option<String> {
    // `pass@1`, `hits@10`.
    let ranked = words.windows(2).find(|w| {
        matches!(w[0].as_str(), "pass" | "hits" | "hit")
            && (w[1].bytes().all(|b| b.is_ascii_digit()) || matches!(w[1].as_str(), "k" | "at"))
    });
    let two = beside(words, &SHARES_OF_TWO).map(joined);
    let one = || words.iter().find(|word| is_of(word, &SHARE)).cloned();
    ranked.map(|w| format!("{}@{}", w[0], w[1])).or(two).or_else(one)
}

/// Whether the words of a score are of what an agent earns.
pub(super) fn is_return(words: &[String]) -> bool {
    let earned = ["reward", "rewards", "rew", "return", "returns"];
    // Of preference tuning: differences of likelihoods, under the name of rewards.
    let other = ["margin", "margins", "chosen", "rejected", "accuracies", "accuracy", "model"];
    words.iter().any(|word| earned.contains(&word.as_str()))
        && !words.iter().any(|word| other.contains(&word.as_str()))
}

/// Whether the words of a loss are of a part of the objective.
pub(super) fn part(words: &[String]) -> bool {
    let is_loss =
        |at: Option<&String>| at.is_some_and(|w| matches!(w.as_str(), "loss" | "losses" | "err" | "error"));
    words.iter().enumerate().any(|(i, word)| {
        let cross = word == "entropy" && i > 0 && words[i - 1] == "cross";
        let before = i.checked_sub(1).and_then(|i| words.get(i));
        let after = is_loss(words.get(i + 1));
        // `loss_value` is how many name the loss itself.
        let beside = PART_BESIDE.contains(&word.as_str()) && (after || is_loss(before) && word != "value");
        beside || is_of(word, &PART) && !cross
    })
}

/// Whether a name tells of a setting, of a spread, or of how many.
fn is_setting(words: &[String], name: &str) -> bool {
    let last = words.iter().rev().find(|word| !word.bytes().all(|b| b.is_ascii_digit()));
    let own = measured(name.rsplit('/').next().unwrap_or(name));
    let counted = own.first().is_some_and(|word| word == "num");
    words.len() > 1 && (counted || last.is_some_and(|word| SETTING.contains(&word.as_str())))
        || beside(words, &[("acc", "steps"), ("grad", "acc"), ("gradient", "acc"), ("acc", "grad")]).is_some()
        || words.windows(2).any(|w| MAPS.contains(&w[0].as_str()) && w[1] == "map")
        || words.iter().any(|word| matches!(word.as_str(), "chosen" | "rejected"))
            && !words.iter().any(|word| word == "loss")
}

/// What a name says that a run is judged by: a loss, an error or a score, and by
/// which word.
pub(super) fn judged(words: &[String], name: &str) -> Option<(Role, String)> {
    if is_setting(words, name) {
        return None;
    }
    // The last part of a name says it, its section only where that says nothing.
    let own = name.rsplit_once('/').map(|(_, own)| measured(own));
    own.and_then(|own| measure(&own)).or_else(|| measure(words)).or_else(|| {
        let own = measured(name.rsplit('/').next().unwrap_or(name));
        own.iter().find(|word| *word == "objective").map(|word| (Role::Loss, word.clone()))
    })
}

fn measure(words: &[String]) -> Option<(Role, String)> {
    let find = |list: &[&str]| words.iter().find(|word| is_of(word, list)).cloned();
    negated(words)
        .or_else(|| Some((Role::Loss, loss(words)?)))
        .or_else(|| Some((Role::Error, find(&ERROR)?)))
        .or_else(|| {
            let two = beside(words, &SCORES_OF_TWO).map(joined);
            Some((Role::Score, share(words).or(two).or_else(|| find(&OPEN_SCORE))?))
        })
}

fn loss(words: &[String]) -> Option<String> {
    let known = words.iter().find(|word| is_of(word, &LOSS)).cloned();
    let two = [
        ("cross", "entropy"),
        ("td", "error"),
        // As a well-known tutorial on adversarial networks prints them.
        ("err", "g"),
        ("err", "d"),
    ];
    let per = words.windows(3).find(|w| {
        matches!(w[0].as_str(), "bits" | "nats")
            && w[1] == "per"
            && matches!(w[2].as_str(), "byte" | "char" | "character" | "dim" | "token")
    });
    known.or_else(|| beside(words, &two).map(joined)).or_else(|| per.map(|w| w.join(" ")))
}

/// `neg_elbo` is a loss; scikit-learn's `neg_mean_squared_error` is a score.
fn negated(words: &[String]) -> Option<(Role, String)> {
    let at = words.iter().position(|word| matches!(word.as_str(), "neg" | "negative" | "minus"))?;
    let rest = &words[at + 1..];
    let turned = beside(rest, &SCORES_OF_TWO).map(joined);
    let turned = turned.or_else(|| rest.first().filter(|word| NEGATED.contains(&bare(word))).cloned());
    if let Some(word) = turned {
        return Some((Role::Loss, format!("{} {word}", words[at])));
    }
    let error = beside(rest, &[("squared", "error"), ("absolute", "error"), ("log", "loss")]);
    error.map(|pair| (Role::Score, format!("{} {}", words[at], joined(pair))))
}

/// nanoGPT's and llm.c's `dt`.
pub(super) fn step_time(name: &str) -> Option<String> {
    let own = words(name.rsplit('/').next().unwrap_or(name));
    matches!(own.iter().map(String::as_str).collect::<Vec<_>>()[..], ["dt"] | ["dt", "ms"])
        .then(|| "dt".to_owned())
}

/// Counters by their last word, or as a number or total of it.
pub(super) fn counter(words: &[String]) -> Option<String> {
    let counted = ["episode", "episodes", "tokens", "frames", "samples"];
    let totals = ["num", "n", "total"];
    let word = words.iter().find(|word| counted.contains(&word.as_str()))?;
    let total = words.iter().any(|word| totals.contains(&word.as_str()));
    (words.len() == 1 || total && !words.iter().any(|word| word == "len" || word == "length"))
        .then(|| word.clone())
}
