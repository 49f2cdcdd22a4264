//! Where series come from, and in which order they are listed.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::cursor::Cursor;
use crate::day::{Day, now};
use crate::error::{Error, Result};
use crate::http::{Http, HttpOptions};
use crate::part10::{ObjectIds, read_ids};
use crate::qido::{self, Question, SeriesRef};
use crate::spool::{Spool, SpooledSeries};
use crate::uid::Uid;
use crate::{orthanc, wado};

/// Days that are listed again in each round, because studies arrive late.
const NEWEST_DAYS: i64 = 7;
/// Where Orthanc answers DICOMweb, below its own address.
const ORTHANC_DICOMWEB: &str = "/dicom-web";

/// What is wanted of a source.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// The oldest day of a study; `None` for everything.
    pub since: Option<Day>,
    /// DICOM codes of modalities; empty for all.
    pub modalities: Vec<String>,
}

impl Selection {
    /// Returns the modalities to ask for one by one; lists of several find nothing at some PACS.
    fn questions(&self) -> Vec<Option<&str>> {
        match self.modalities.is_empty() {
            true => vec![None],
            false => {
                let all = self.modalities.iter();
                all.map(|modality| Some(modality.as_str())).collect()
            }
        }
    }

    pub(crate) fn has_modality(&self, modality: &str) -> bool {
        self.modalities.is_empty() || self.modalities.iter().any(|wanted| wanted == modality)
    }

    fn has_day(&self, day: Option<Day>) -> bool {
        let is_older = |since: Day| day.is_some_and(|day| day < since);
        !self.since.is_some_and(is_older)
    }
}

/// How far a list was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// Orthanc's number of a change.
    Change(u64),
    /// All studies up to this day.
    Day(Day),
}

/// Some series of a source.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) series: Vec<SeriesRef>,
    /// What is done once these series are.
    pub(crate) then: Option<Position>,
}

/// A place that holds series.
pub(crate) trait Source {
    /// Begins a round.
    fn begin(&mut self, cursor: &Cursor, selection: &Selection);
    /// Lists further series; `None` if that was all.
    fn page(&mut self, selection: &Selection) -> Result<Option<Page>>;
    /// Describes a series as it is now; `None` if it is gone.
    fn again(&mut self, series: &SeriesRef) -> Result<Option<SeriesRef>>;
    /// Fetches a series; `None` if it is gone.
    fn fetch(&mut self, series: &SeriesRef, spool: &Spool) -> Result<Option<SpooledSeries>>;
    /// Lists the UIDs of all series, wanted or not.
    fn all(&mut self, sink: &mut dyn FnMut(Uid)) -> Result<()>;
    /// Returns a selection as this source understands it.
    fn understood(&self, selection: &Selection) -> Selection {
        selection.clone()
    }
}

/// Returns the first day of a round: the newest days again, and all since the last round.
pub(crate) fn first_day(cursor: &Cursor, selection: &Selection) -> Option<Day> {
    let newest = Day::today().plus(-NEWEST_DAYS);
    let done = cursor.day.as_deref().and_then(Day::of_dicom);
    match (done, selection.since) {
        (Some(done), since) => {
            let first = newest.min(done.plus(1));
            Some(since.map_or(first, |since| since.max(first)))
        }
        (None, since) => since,
    }
}

/// What a DICOMweb source is asked next: days, modalities and pages, in this order.
#[derive(Debug, Default)]
struct Lists {
    /// Of each: the day, or `None` for all days at once; the modality; whether it is the last of its day.
    left: VecDeque<(Option<Day>, Option<String>, bool)>,
    offset: usize,
}

/// A PACS with DICOMweb.
pub(crate) struct DicomWeb {
    http: Http,
    lists: Lists,
}

impl DicomWeb {
    pub(crate) fn new(options: &HttpOptions) -> Result<Self> {
        Ok(Self {
            http: Http::new(options)?,
            lists: Lists::default(),
        })
    }

    fn ask(&self, question: &Question<'_>) -> Result<Vec<SeriesRef>> {
        let list = self.http.list("listing series", &qido::path_of(question))?;
        Ok(qido::parse(&list)?.0)
    }
}

impl Source for DicomWeb {
    fn begin(&mut self, cursor: &Cursor, selection: &Selection) {
        let today = Day::today();
        let mut days = Vec::new();
        match first_day(cursor, selection) {
            None => days.push(None),
            Some(mut day) => {
                // Clocks differ: what is of tomorrow is listed, too.
                while day <= today.plus(1) {
                    days.push(Some(day));
                    day = day.plus(1);
                }
            }
        }
        let questions = selection.questions();
        let mut left = VecDeque::new();
        for day in days {
            for (idx, modality) in questions.iter().enumerate() {
                let is_last = idx + 1 == questions.len();
                left.push_back((day, modality.map(str::to_owned), is_last));
            }
        }
        self.lists = Lists { left, offset: 0 };
    }

    fn page(&mut self, _: &Selection) -> Result<Option<Page>> {
        let Some((day, modality, is_last)) = self.lists.left.front() else {
            return Ok(None);
        };
        let (day, is_last) = (*day, *is_last);
        let question = Question {
            modality: modality.as_deref(),
            days: day.map(|day| (day, day)),
            series: None,
            offset: self.lists.offset,
        };
        let list = self
            .http
            .list("listing series", &qido::path_of(&question))?;
        let (series, n_without) = qido::parse(&list)?;
        let mut page = Page { series, then: None };
        // Some servers ignore the limit, and some answer fewer than asked.
        let n_listed = page.series.len() + n_without;
        if n_listed >= qido::PAGE {
            self.lists.offset += n_listed;
            return Ok(Some(page));
        }
        self.lists.left.pop_front();
        self.lists.offset = 0;
        if is_last {
            let reached = day.unwrap_or_else(Day::today).min(Day::today());
            page.then = Some(Position::Day(reached));
        }
        Ok(Some(page))
    }

    fn again(&mut self, series: &SeriesRef) -> Result<Option<SeriesRef>> {
        let question = Question {
            series: Some(&series.series),
            ..Question::default()
        };
        let found = self.ask(&question)?.into_iter();
        // A server that ignores the UID lists others.
        Ok(found
            .into_iter()
            .find(|found| found.series == series.series))
    }

    fn fetch(&mut self, series: &SeriesRef, spool: &Spool) -> Result<Option<SpooledSeries>> {
        wado::fetch(&self.http, "", series, spool)
    }

    fn all(&mut self, sink: &mut dyn FnMut(Uid)) -> Result<()> {
        let mut offset = 0;
        loop {
            let question = Question {
                offset,
                ..Question::default()
            };
            let list = self
                .http
                .list("listing all series", &qido::path_of(&question))?;
            let (series, n_without) = qido::parse(&list)?;
            let n_listed = series.len() + n_without;
            series.into_iter().for_each(|series| sink(series.series));
            if n_listed < qido::PAGE {
                return Ok(());
            }
            offset += n_listed;
        }
    }
}

/// Orthanc, through its own feed of changes and DICOMweb.
pub(crate) struct Orthanc {
    http: Http,
    since: u64,
    is_begun: bool,
    is_done: bool,
}

impl Orthanc {
    pub(crate) fn new(options: &HttpOptions) -> Result<Self> {
        Ok(Self {
            http: Http::new(options)?,
            since: 0,
            is_begun: false,
            is_done: false,
        })
    }
}

impl Source for Orthanc {
    fn begin(&mut self, cursor: &Cursor, _: &Selection) {
        (self.since, self.is_begun, self.is_done) = (cursor.change, false, false);
    }

    fn page(&mut self, selection: &Selection) -> Result<Option<Page>> {
        if self.is_done {
            return Ok(None);
        }
        // A database that began anew counts from the beginning, and what it has was not seen.
        if !self.is_begun && self.since > 0 && orthanc::newest_change(&self.http)? < self.since {
            self.since = 0;
        }
        self.is_begun = true;
        let changes = orthanc::changes(&self.http, self.since)?;
        (self.since, self.is_done) = (changes.last, changes.is_done);
        let mut page = Page {
            series: Vec::new(),
            then: Some(Position::Change(changes.last)),
        };
        for id in changes.stable {
            if let Some((series, modality)) = orthanc::series_of(&self.http, &id)?
                && selection.has_modality(&modality)
                && selection.has_day(series.day)
            {
                page.series.push(series);
            }
        }
        Ok(Some(page))
    }

    fn again(&mut self, series: &SeriesRef) -> Result<Option<SeriesRef>> {
        Ok(Some(series.clone()))
    }

    fn fetch(&mut self, series: &SeriesRef, spool: &Spool) -> Result<Option<SpooledSeries>> {
        wado::fetch(&self.http, ORTHANC_DICOMWEB, series, spool)
    }

    fn all(&mut self, sink: &mut dyn FnMut(Uid)) -> Result<()> {
        orthanc::all_series(&self.http, sink)
    }
}

/// Deepest folder that is looked into.
const MAX_DEPTH: usize = 32;

/// A file of a folder: its size and time, and which object it is, if one.
struct Known {
    length: u64,
    modified: SystemTime,
    of: Option<ObjectIds>,
}

/// A folder that a PACS or a person puts files into.
pub(crate) struct Folder {
    folder: PathBuf,
    quiet: Duration,
    known: HashMap<PathBuf, Known>,
    /// The files of each series.
    series: BTreeMap<Uid, Vec<PathBuf>>,
    /// Files that the last look could not open.
    n_unreadable: usize,
    is_done: bool,
}

impl Folder {
    pub(crate) fn new(folder: &Path, quiet: Duration) -> Result<Self> {
        std::fs::read_dir(folder).map_err(Error::io("listing", folder))?;
        Ok(Self {
            folder: folder.to_owned(),
            quiet,
            known: HashMap::new(),
            series: BTreeMap::new(),
            n_unreadable: 0,
            is_done: false,
        })
    }

    /// Looks at files that are new or changed, and groups all by series.
    fn look(&mut self) -> Result<()> {
        let mut files = Vec::new();
        files_below(&self.folder, MAX_DEPTH, &mut files)?;
        let mut known = HashMap::with_capacity(files.len());
        self.series.clear();
        self.n_unreadable = 0;
        for path in files {
            let Ok(status) = std::fs::metadata(&path) else {
                self.n_unreadable += 1;
                continue;
            };
            let modified = status.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let before = self.known.remove(&path);
            let same =
                before.filter(|known| known.length == status.len() && known.modified == modified);
            let file = match same {
                Some(file) => file,
                None => {
                    // What cannot be opened may be an object of any series, and is looked at again.
                    let Ok(opened) = File::open(&path) else {
                        self.n_unreadable += 1;
                        continue;
                    };
                    Known {
                        length: status.len(),
                        modified,
                        of: read_ids(opened).ok(),
                    }
                }
            };
            if let Some(ids) = &file.of {
                self.series
                    .entry(ids.series.clone())
                    .or_default()
                    .push(path.clone());
            }
            known.insert(path, file);
        }
        self.known = known;
        Ok(())
    }

    fn describe(&self, series: &Uid) -> Option<(SeriesRef, &str)> {
        let files = self.series.get(series)?;
        let known: Vec<&Known> = files
            .iter()
            .filter_map(|path| self.known.get(path))
            .collect();
        let ids = known.first()?.of.as_ref()?;
        let instances = known.iter().filter_map(|known| known.of.as_ref());
        // Copies of one object count once.
        let instances: BTreeSet<&Uid> = instances.map(|ids| &ids.sop_instance).collect();
        let now = now();
        let is_old = |known: &&Known| {
            let age = now.duration_since(known.modified);
            age.is_ok_and(|age| age >= self.quiet)
        };
        let described = SeriesRef {
            study: ids.study.clone(),
            series: series.clone(),
            n_instances: u32::try_from(instances.len()).ok(),
            day: None,
            is_stable: known.iter().all(is_old),
        };
        Some((described, &ids.modality))
    }
}

impl Source for Folder {
    fn begin(&mut self, _: &Cursor, _: &Selection) {
        self.is_done = false;
    }

    fn page(&mut self, selection: &Selection) -> Result<Option<Page>> {
        if std::mem::replace(&mut self.is_done, true) {
            return Ok(None);
        }
        self.look()?;
        let all = self.series.keys().filter_map(|uid| self.describe(uid));
        let wanted = all.filter(|(_, modality)| selection.has_modality(modality));
        Ok(Some(Page {
            series: wanted.map(|(series, _)| series).collect(),
            then: None,
        }))
    }

    fn again(&mut self, series: &SeriesRef) -> Result<Option<SeriesRef>> {
        self.look()?;
        Ok(self.describe(&series.series).map(|(series, _)| series))
    }

    fn fetch(&mut self, series: &SeriesRef, spool: &Spool) -> Result<Option<SpooledSeries>> {
        let Some(files) = self.series.get(&series.series) else {
            return Ok(None);
        };
        let mut fetching = spool.begin_series(&series.study, &series.series)?;
        for path in files {
            let mut incoming = fetching.begin()?;
            let file = File::open(path).map_err(Error::io("reading", path))?;
            incoming.copy(file)?;
            fetching.take(&incoming)?;
        }
        fetching.finish().map(Some)
    }

    fn all(&mut self, sink: &mut dyn FnMut(Uid)) -> Result<()> {
        self.look()?;
        if self.n_unreadable > 0 {
            return Err(Error::Caller(format!(
                "{} files of the folder cannot be read: whether their series are gone is not known, and none is removed; \
                 make them readable, or leave --reconcile out",
                self.n_unreadable
            )));
        }
        self.series.keys().cloned().for_each(sink);
        Ok(())
    }
}

/// Lists files below a folder. Links are not followed: they could lead anywhere.
fn files_below(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    let io = |error| Error::io("listing", folder)(error);
    if depth == 0 {
        let told = format!("found folders deeper than {MAX_DEPTH}, wanted fewer");
        return Err(io(std::io::Error::other(told)));
    }
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let kind = entry.file_type().map_err(io)?;
        if kind.is_dir() {
            files_below(&entry.path(), depth - 1, files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Names;
    use crate::part10::tests::object;
    use crate::spool::SpoolLimits;

    #[test]
    fn a_round_begins_at_the_newest_days_or_where_the_last_one_ended() {
        let today = Day::today();
        let mut cursor = Cursor::default();
        let mut selection = Selection::default();
        assert_eq!(first_day(&cursor, &selection), None);
        selection.since = Some(today.plus(-100));
        assert_eq!(first_day(&cursor, &selection), selection.since);
        cursor.day = Some(today.to_dicom());
        assert_eq!(first_day(&cursor, &selection), Some(today.plus(-7)));
        cursor.day = Some(today.plus(-30).to_dicom());
        assert_eq!(first_day(&cursor, &selection), Some(today.plus(-29)));
        selection.since = Some(today);
        assert_eq!(first_day(&cursor, &selection), Some(today));
    }

    #[test]
    fn a_folder_is_sorted_by_series_and_what_is_no_dicom_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let files = folder.path().join("files/deep");
        std::fs::create_dir_all(&files).unwrap();
        std::fs::write(files.join("a"), object("1.1", "1.5", b"a")).unwrap();
        std::fs::write(files.join("b"), object("1.1", "1.6", b"a")).unwrap();
        std::fs::write(files.join("c"), object("1.2", "1.7", b"a")).unwrap();
        std::fs::write(files.join("d"), "text").unwrap();
        let mut source = Folder::new(&folder.path().join("files"), Duration::ZERO).unwrap();
        let selection = Selection::default();
        source.begin(&Cursor::default(), &selection);
        let page = source.page(&selection).unwrap().unwrap();
        assert_eq!(page.series.len(), 2);
        assert!(page.series.iter().all(|series| series.is_stable));
        assert!(source.page(&selection).unwrap().is_none());
        let spool = folder.path().join("spool");
        let spool = Spool::open(&spool, Names::new(b"k"), SpoolLimits::default()).unwrap();
        let fetched = source.fetch(&page.series[0], &spool).unwrap().unwrap();
        assert_eq!(fetched.n_objects, 2);
        source.quiet = Duration::from_secs(3600);
        let again = source.again(&page.series[0]).unwrap().unwrap();
        assert!(!again.is_stable);
        let other = Selection {
            modalities: vec!["MR".to_owned()],
            ..Selection::default()
        };
        source.begin(&Cursor::default(), &other);
        assert!(source.page(&other).unwrap().unwrap().series.is_empty());
    }
}
