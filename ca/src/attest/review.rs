//! The API server's word on a service account token whose signature is good: does its pod still live, and is the token that
//! pod's own? Bounded in number and time; where there is no word, there is no certificate.
//!
//! One word holds for [`REMEMBERED`]: that is how long a pod that was deleted may still be given certificates. Whether the token
//! itself is valid is looked at each time, before (`service_account`). Tokens are known here by their SHA-256 only. Knows not
//! how the API server is asked (`kubernetes`).

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA256, digest};
use tokio::{
    sync::{OnceCell, Semaphore},
    time,
};
use zeroize::Zeroizing;

/// Retries of one sidecar, and replicas that share nothing but their token's bytes, cost the API server one question.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(5);
/// Questions to the API server at once: it has others to answer, too.
const AT_ONCE: usize = 32;
/// For a place among them, and then for the answer. Together less than a sidecar's patience (10 s), also for who waits for
/// another's word on the same token.
const PLACE_LIMIT: Duration = Duration::from_secs(2);
/// See [`PLACE_LIMIT`].
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// An API server that answers some and not others is told of once in this time.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// Words that are remembered; each has some 200 bytes, and an end. A cluster that starts at once has no more in five seconds.
const MOST_REMEMBERED: usize = 10_000;
/// As a part of a message.
const LONGEST_REASON: usize = 300;

/// What a token says of the pod that it was made for, verified by its signature.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Binding {
    pub(crate) namespace: String,
    pub(crate) account: String,
    pub(crate) pod: String,
    pub(crate) uid: String,
}

/// What the API server says of a token, and of the pod of that name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Word {
    pub(crate) authenticated: bool,
    /// Why not.
    pub(crate) error: String,
    /// Those of ours that the token is for.
    pub(crate) audiences: Vec<String>,
    pub(crate) user: String,
    pub(crate) pods: Vec<String>,
    pub(crate) uids: Vec<String>,
    /// As it lies in the API now; `None`: there is none.
    pub(crate) pod: Option<Pod>,
}

/// A pod, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Pod {
    pub(crate) uid: String,
    pub(crate) account: String,
    /// All its containers have ended for good.
    pub(crate) has_ended: bool,
}

/// Why a token whose signature is good proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// The API server says no.
    #[error("the API server refuses the token (TokenReview): {0}")]
    Refused(String),
    /// It was not asked about us, or is too old to know audiences.
    #[error("the API server does not confirm the token's audience; it must be {0:?}")]
    Audience(String),
    /// What it says of the token is not what the token says.
    #[error("the API server knows the token with another {0} than it claims")]
    Differs(&'static str),
    /// The pod was deleted, perhaps made anew under the same name.
    #[error("the pod {0} is gone; its token proves nothing any more")]
    PodGone(String),
    /// All its containers have ended.
    #[error("the pod {0} has ended; its token proves nothing any more")]
    PodEnded(String),
    /// Nobody says anything.
    #[error("the Kubernetes API server cannot be asked about the token: {0}")]
    Away(String),
    /// Too many questions at once.
    #[error("too many tokens wait for the API server's review; come back")]
    Busy,
}

impl ReviewError {
    /// A fixed word for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Refused(_) => "review_refused",
            Self::Audience(_) => "review_audience",
            Self::Differs(_) => "review_differs",
            Self::PodGone(_) => "pod_gone",
            Self::PodEnded(_) => "pod_ended",
            Self::Away(_) => "review_away",
            Self::Busy => "review_busy",
        }
    }
}

/// A question on its way. The error says why there is no word.
pub(crate) type Asking = Pin<Box<dyn Future<Output = Result<Word, String>> + Send>>;
type Ask = dyn Fn(Zeroizing<String>, Binding) -> Asking + Send + Sync;

/// Has tokens reviewed.
pub struct Reviewer {
    audience: String,
    ask: Box<Ask>,
    places: Semaphore,
    limits: Limits,
    known: Mutex<HashMap<[u8; 32], Known>>,
    away: Mutex<Away>,
}

// Whether the log has it that nobody is asked, and since when.
#[derive(Default)]
struct Away {
    is_told: bool,
    told: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    place: Duration,
    answer: Duration,
}

#[derive(Clone)]
struct Known {
    // From before it was asked.
    since: Instant,
    verdict: Arc<OnceCell<Result<(), ReviewError>>>,
}

impl Reviewer {
    /// Tokens for `audience`, by what `ask` says.
    pub(crate) fn new(
        audience: String,
        ask: impl Fn(Zeroizing<String>, Binding) -> Asking + Send + Sync + 'static,
    ) -> Self {
        Self {
            audience,
            ask: Box::new(ask),
            places: Semaphore::new(AT_ONCE),
            limits: Limits { place: PLACE_LIMIT, answer: ANSWER_LIMIT },
            known: Mutex::default(),
            away: Mutex::default(),
        }
    }

    /// Is `token` the token of a pod that lives? Equal tokens are asked about once.
    pub(crate) async fn review(&self, token: &str, binding: &Binding) -> Result<(), ReviewError> {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        let verdict = self.known().entry(hash, Instant::now())?;
        // Whoever waits for the same token takes its turn when there was no word for the one before: all within one limit.
        let limit = self.limits.place + self.limits.answer;
        match time::timeout(limit, verdict.get_or_try_init(|| self.judged(token, binding))).await {
            Ok(judged) => judged?.clone(),
            Err(_) => Err(ReviewError::Away(format!("no answer within {limit:?}"))),
        }
    }

    // What is certain is a value, which is remembered; that nobody answered is an error, which is not.
    async fn judged(&self, token: &str, binding: &Binding) -> Result<Result<(), ReviewError>, ReviewError> {
        let place = time::timeout(self.limits.place, self.places.acquire()).await;
        let Ok(Ok(_place)) = place else { return Err(ReviewError::Busy) };
        let asked = (self.ask)(Zeroizing::new(token.to_owned()), binding.clone());
        let word = match time::timeout(self.limits.answer, asked).await {
            Ok(word) => word,
            Err(_) => Err(format!("no answer within {:?}", self.limits.answer)),
        };
        self.say_whether_away(word.as_ref().err());
        Ok(judge(&word.map_err(ReviewError::Away)?, binding, &self.audience))
    }

    // Not for each sidecar that asks meanwhile.
    fn say_whether_away(&self, error: Option<&String>) {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        match error {
            Some(error) if away.is_to_be_told(Instant::now()) => tracing::error!(
                error,
                "the API server does not review tokens: no pod gets a certificate until it does (if it forbids it, apply what \
                 `douane upgrade` prints)"
            ),
            None if std::mem::take(&mut away.is_told) => {
                tracing::info!("the API server reviews tokens again");
            }
            _ => {}
        }
    }

    fn known(&self) -> Words<'_> {
        Words(self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Away {
    fn is_to_be_told(&mut self, now: Instant) -> bool {
        let is_recent = self.told.is_some_and(|told| now.saturating_duration_since(told) < TELL_EVERY);
        if self.is_told || is_recent {
            return false;
        }
        (self.is_told, self.told) = (true, Some(now));
        true
    }
}

struct Words<'a>(MutexGuard<'a, HashMap<[u8; 32], Known>>);

impl Words<'_> {
    // What is known of the token, or a place for it.
    fn entry(
        &mut self,
        hash: [u8; 32],
        now: Instant,
    ) -> Result<Arc<OnceCell<Result<(), ReviewError>>>, ReviewError> {
        let is_fresh = |known: &Known| now.saturating_duration_since(known.since) < REMEMBERED;
        if let Some(known) = self.0.get(&hash).filter(|known| is_fresh(known)) {
            return Ok(Arc::clone(&known.verdict));
        }
        if self.0.len() >= MOST_REMEMBERED {
            self.0.retain(|_, known| is_fresh(known));
            if self.0.len() >= MOST_REMEMBERED {
                return Err(ReviewError::Busy);
            }
        }
        let fresh = Known { since: now, verdict: Arc::default() };
        let verdict = Arc::clone(&fresh.verdict);
        self.0.insert(hash, fresh);
        Ok(verdict)
    }
}

// Each of these must be as the token itself says.
fn judge(word: &Word, binding: &Binding, audience: &str) -> Result<(), ReviewError> {
    if !word.authenticated {
        return Err(ReviewError::Refused(reason(&word.error)));
    }
    if !word.audiences.iter().any(|one| one == audience) {
        return Err(ReviewError::Audience(audience.to_owned()));
    }
    if word.user != format!("system:serviceaccount:{}:{}", binding.namespace, binding.account) {
        return Err(ReviewError::Differs("service account"));
    }
    if word.pods != [binding.pod.as_str()] {
        return Err(ReviewError::Differs("pod"));
    }
    if word.uids != [binding.uid.as_str()] {
        return Err(ReviewError::Differs("pod uid"));
    }
    let name = format!("{}/{}", binding.namespace, binding.pod);
    match &word.pod {
        Some(pod) if pod.uid != binding.uid => Err(ReviewError::PodGone(name)),
        Some(pod) if pod.account != binding.account => {
            Err(ReviewError::Differs("service account of its pod"))
        }
        Some(pod) if pod.has_ended => Err(ReviewError::PodEnded(name)),
        Some(_) => Ok(()),
        None => Err(ReviewError::PodGone(name)),
    }
}

// Somebody else's words, for a log line and a message.
fn reason(said: &str) -> String {
    match said.trim() {
        "" => "it does not say why".to_owned(),
        said => said.chars().filter(|letter| !letter.is_control()).take(LONGEST_REASON).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn binding() -> Binding {
        let text = str::to_owned;
        Binding { namespace: text("shop"), account: text("web"), pod: text("web-1"), uid: text("u1") }
    }

    fn word() -> Word {
        Word {
            authenticated: true,
            error: String::new(),
            audiences: vec!["douane-ca".to_owned()],
            user: "system:serviceaccount:shop:web".to_owned(),
            pods: vec!["web-1".to_owned()],
            uids: vec!["u1".to_owned()],
            pod: Some(Pod { uid: "u1".to_owned(), account: "web".to_owned(), has_ended: false }),
        }
    }

    // Answers with what the function says, and counts how often it was asked.
    fn reviewer(
        answer: impl Fn() -> Result<Word, String> + Send + Sync + 'static,
    ) -> (Reviewer, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let ask = move |_, _| -> Asking {
            counted.fetch_add(1, Ordering::SeqCst);
            let word = answer();
            Box::pin(async move { word })
        };
        (Reviewer::new("douane-ca".to_owned(), ask), asked)
    }

    const SHORT: Duration = Duration::from_millis(10);
    const LONG: Duration = Duration::from_secs(3600);

    fn hanging(limits: Limits) -> Reviewer {
        let silent = |_, _| -> Asking { Box::pin(std::future::pending()) };
        Reviewer { limits, ..Reviewer::new("douane-ca".to_owned(), silent) }
    }

    #[test]
    fn t3_each_word_of_the_review_must_be_as_the_token_says() {
        assert_eq!(judge(&word(), &binding(), "douane-ca"), Ok(()));
        let pod = |change: fn(&mut Pod)| {
            let mut pod = word().pod.unwrap();
            change(&mut pod);
            Some(pod)
        };
        let gone = ReviewError::PodGone("shop/web-1".to_owned());
        for (word, expected) in [
            (
                Word { authenticated: false, error: "has been\ninvalidated".to_owned(), ..word() },
                ReviewError::Refused("has beeninvalidated".to_owned()),
            ),
            (Word { authenticated: false, ..word() }, ReviewError::Refused("it does not say why".to_owned())),
            (Word { audiences: Vec::new(), ..word() }, ReviewError::Audience("douane-ca".to_owned())),
            (
                Word { user: "system:serviceaccount:shop:orders".to_owned(), ..word() },
                ReviewError::Differs("service account"),
            ),
            (Word { pods: Vec::new(), ..word() }, ReviewError::Differs("pod")),
            (
                Word { pods: vec!["web-1".to_owned(), "web-2".to_owned()], ..word() },
                ReviewError::Differs("pod"),
            ),
            (Word { uids: vec!["u2".to_owned()], ..word() }, ReviewError::Differs("pod uid")),
            (Word { pod: None, ..word() }, gone.clone()),
            (Word { pod: pod(|pod| pod.uid = "u2".to_owned()), ..word() }, gone),
            (
                Word { pod: pod(|pod| pod.account = "orders".to_owned()), ..word() },
                ReviewError::Differs("service account of its pod"),
            ),
            (
                Word { pod: pod(|pod| pod.has_ended = true), ..word() },
                ReviewError::PodEnded("shop/web-1".to_owned()),
            ),
        ] {
            assert_eq!(judge(&word, &binding(), "douane-ca"), Err(expected), "{word:?}");
        }
    }

    #[tokio::test]
    async fn t7_equal_tokens_are_asked_about_once_in_five_seconds_and_others_each() {
        let (reviewer, asked) = reviewer(|| Ok(word()));
        let one = binding();
        let review = || reviewer.review("a.b.c", &one);
        let (one, two, three) = tokio::join!(review(), review(), review());
        assert_eq!((one, two, three), (Ok(()), Ok(()), Ok(())));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        reviewer.review("a.b.d", &binding()).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2);

        let later = Instant::now() + REMEMBERED;
        let mut known = reviewer.known();
        let hash = *known.0.keys().next().unwrap();
        assert!(known.entry(hash, later).unwrap().get().is_none(), "after five seconds it is asked again");
    }

    #[test]
    fn an_api_server_that_comes_and_goes_is_told_of_twice_a_minute() {
        let (start, mut away) = (Instant::now(), Away::default());
        let told = (0..60).filter(|second| {
            let is_told = away.is_to_be_told(start + Duration::from_secs(*second));
            away.is_told = false;
            is_told
        });
        assert_eq!(told.collect::<Vec<_>>(), [0, 30]);
    }

    #[tokio::test]
    async fn t7_whoever_waits_for_anothers_word_on_the_same_token_waits_no_longer_than_one() {
        const SIDECARS: usize = 30;
        let limit = Duration::from_secs(1);
        let reviewer = Arc::new(hanging(Limits { place: SHORT, answer: limit }));
        let began = Instant::now();
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..SIDECARS {
            let reviewer = Arc::clone(&reviewer);
            waiting.spawn(async move { reviewer.review("a.b.c", &binding()).await });
        }
        let said = waiting.join_all().await;
        assert!(said.iter().all(|said| matches!(said, Err(ReviewError::Away(_)))), "{said:?}");
        // One after another they would take thirty seconds.
        assert!(began.elapsed() < limit * 20, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn t7_an_api_server_that_is_away_or_hangs_accepts_nobody_and_is_asked_again() {
        let (away, asked) = reviewer(|| Err("connection refused".to_owned()));
        for times in 1..=2 {
            let refused = away.review("a.b.c", &binding()).await.unwrap_err();
            assert_eq!(refused, ReviewError::Away("connection refused".to_owned()));
            assert_eq!(asked.load(Ordering::SeqCst), times, "that nobody answered is not remembered");
        }
        let refused = hanging(Limits { place: LONG, answer: SHORT }).review("a.b.c", &binding()).await;
        assert_eq!(refused, Err(ReviewError::Away("no answer within 10ms".to_owned())));
    }

    #[tokio::test]
    async fn t7_questions_at_once_are_bounded_and_so_is_what_is_remembered() {
        let hangs = Arc::new(hanging(Limits { place: SHORT, answer: LONG }));
        let one_more = |number: usize| {
            let hangs = Arc::clone(&hangs);
            tokio::spawn(async move {
                let (token, binding) = (format!("a.b.{number}"), binding());
                let refused = hangs.review(&token, &binding).await;
                assert!(refused.is_err());
            })
        };
        let waiting: Vec<_> = (0..AT_ONCE).map(one_more).collect();
        while hangs.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(hangs.review("a.b.c", &binding()).await, Err(ReviewError::Busy));
        waiting.iter().for_each(tokio::task::JoinHandle::abort);

        let (reviewer, _) = reviewer(|| Ok(word()));
        let now = Instant::now();
        let mut known = reviewer.known();
        let hash = |number: usize| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&number.to_le_bytes());
            hash
        };
        for number in 0..MOST_REMEMBERED {
            known.entry(hash(number), now).unwrap();
        }
        assert_eq!(known.entry(hash(MOST_REMEMBERED), now).unwrap_err(), ReviewError::Busy);
        known.entry(hash(MOST_REMEMBERED), now + REMEMBERED).unwrap();
        assert_eq!(known.0.len(), 1);
    }
}
