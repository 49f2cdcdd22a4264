//! Which files of a folder are images to look at: by patterns of their names.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use glob::{MatchOptions, Pattern};

use crate::words::counted;

/// Files that are left out unless a pattern to include names them: masks that lie beside their images.
const LEFT_OUT: [&str; 18] = [
    "*[-_.]seg.*",
    "*[-_]dseg.*",
    "*[-_]probseg.*",
    "*[-_]segmentation.*",
    "*[-_]mask.*",
    "*[-_]masks.*",
    "*[-_]label.*",
    "*[-_]labels.*",
    "*[-_]labelmap.*",
    "*aseg.*",
    "seg.*",
    "mask.*",
    "segmentation.*",
    "segmentation-*",
    "segmentations",
    "masks",
    "labelsTr",
    "labelsTs",
];

/// A pattern of names: `*` and `?` stand for characters of one name, `**` for any folders, `[ab]` for one of some
/// characters; large and small letters are the same.
///
/// Without `/` it is compared with the name of a file and of each folder that the file lies in below the folder that is
/// read; with `/`, with the whole way of the file from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePattern(Pattern);

impl FromStr for FilePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a pattern is wanted, such as *_t1.nii.gz".to_owned());
        }
        if ["/", "./", "../"]
            .iter()
            .any(|start| text.starts_with(start))
            || text.ends_with('/')
        {
            return Err(
                "a path below the folder is wanted, such as a/*.nii; for a folder and all in it, its name".to_owned(),
            );
        }
        Pattern::new(text)
            .map(Self)
            .map_err(|error| format!("{} at character {}", error.msg, error.pos + 1))
    }
}

impl FilePattern {
    /// Returns whether a file fits; `way` is its path below the folder that is read.
    fn fits(&self, way: &Path) -> bool {
        let options = MatchOptions {
            case_sensitive: false,
            require_literal_separator: true,
            require_literal_leading_dot: false,
        };
        // Names that are not UTF-8 have U+FFFD in place of what is not.
        if self.0.as_str().contains('/') {
            return self.0.matches_with(&way.to_string_lossy(), options);
        }
        way.iter()
            .any(|name| self.0.matches_with(&name.to_string_lossy(), options))
    }
}

/// Which files of a folder are read. A file or manifest that is named itself is read in any case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FilePatterns {
    /// Only files that fit one of these; if there are none, all but masks by the usual names.
    pub include: Vec<FilePattern>,
    /// Of those, not the files that fit one of these.
    pub exclude: Vec<FilePattern>,
    /// Whether masks by the usual names are read although nothing to include names them.
    pub reads_masks: bool,
}

impl FilePatterns {
    /// Returns whether a caller chose files.
    pub(crate) fn is_given(&self) -> bool {
        !self.include.is_empty() || !self.exclude.is_empty()
    }

    /// Returns all patterns as one text, the same for the same choice.
    pub(crate) fn text(&self) -> String {
        let text = |patterns: &[FilePattern]| {
            let patterns = patterns.iter().map(|pattern| pattern.0.as_str());
            patterns.collect::<Vec<_>>().join("\n")
        };
        format!("{}\n\n{}", text(&self.include), text(&self.exclude))
    }

    /// Returns whether these patterns alone allow a file; or a folder, of which it is not known which files are read.
    pub(crate) fn allow(&self, way: &Path, is_folder: bool) -> bool {
        let has = |patterns: &[FilePattern]| patterns.iter().any(|pattern| pattern.fits(way));
        let is_included = self.include.is_empty() || is_folder || has(&self.include);
        is_included && !has(&self.exclude)
    }
}

/// Chooses the files of one folder, and counts what is left out.
pub(crate) struct FileChooser<'a> {
    include: &'a [FilePattern],
    exclude: Vec<FilePattern>,
    /// Number of files by the pattern that left them out; empty for those that no pattern to include names.
    left_out: BTreeMap<String, u64>,
}

impl<'a> FileChooser<'a> {
    pub(crate) fn new(patterns: &'a FilePatterns) -> Self {
        let mut exclude = patterns.exclude.clone();
        if patterns.include.is_empty() && !patterns.reads_masks {
            exclude.extend(LEFT_OUT.iter().filter_map(|text| text.parse().ok()));
        }
        Self {
            include: &patterns.include,
            exclude,
            left_out: BTreeMap::new(),
        }
    }

    /// Returns whether a file is read; `way` is its path below the folder that is read.
    pub(crate) fn chooses(&mut self, way: &Path) -> bool {
        let excluding = self.exclude.iter().find(|pattern| pattern.fits(way));
        let reason = match excluding {
            Some(pattern) => pattern.0.as_str(),
            None if self.include.is_empty() => return true,
            None if self.include.iter().any(|pattern| pattern.fits(way)) => return true,
            None => "",
        };
        match self.left_out.get_mut(reason) {
            Some(n_files) => *n_files += 1,
            None => drop(self.left_out.insert(reason.to_owned(), 1)),
        }
        false
    }

    /// Says what was left out; `None` if nothing was.
    pub(crate) fn note(&self) -> Option<String> {
        let by_pattern = self.left_out.iter().map(|(pattern, n_files)| {
            let files = counted(*n_files, "file", "files");
            match pattern.as_str() {
                "" => format!("{files} that --include-files does not name"),
                pattern => format!("{files} {pattern}"),
            }
        });
        let by_pattern: Vec<String> = by_pattern.collect();
        let is_usual = |pattern: &String| LEFT_OUT.contains(&pattern.as_str());
        let how = match self.left_out.keys().any(is_usual) {
            true => "; masks are read where --include-files or a row of a manifest names them",
            false => "",
        };
        (!by_pattern.is_empty()).then(|| format!("left out {}{how}", by_pattern.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Vec<FilePattern> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// The names that are read, of these.
    fn chosen<'n>(include: &[&str], exclude: &[&str], names: &[&'n str]) -> Vec<&'n str> {
        let files = FilePatterns {
            include: patterns(include),
            exclude: patterns(exclude),
            reads_masks: false,
        };
        let mut chooser = FileChooser::new(&files);
        let names = names.iter().copied();
        names
            .filter(|name| chooser.chooses(Path::new(name)))
            .collect()
    }

    #[test]
    fn masks_are_left_out_by_the_usual_names() {
        let images = [
            "a/BraTS_001_t1.nii.gz",
            "segment.nii",
            "label_free.png",
            "labels/dog.png",
            "mask5/a.dcm",
            "IM0001",
            "bold.nii",
        ];
        let others = [
            "a/BraTS_001_seg.nii.gz",
            "a/b-SEG.nii",
            "segmentation-3.nii",
            "case/segmentations/liver.nii.gz",
            "labelsTr/la_003.nii.gz",
            "masks/1.png",
            "x_mask.png",
            "sub-1_dseg.nii.gz",
            "Mask.nii.gz",
            "x.seg.nrrd",
            "mri/aparc+aseg.mgz",
        ];
        assert_eq!(chosen(&[], &[], &images), images);
        assert_eq!(chosen(&[], &[], &others), [""; 0]);
        // Whoever names them has them.
        assert_eq!(
            chosen(&["*seg*"], &[], &others),
            [0, 1, 2, 3, 7, 9, 10].map(|idx| others[idx])
        );
        assert_eq!(chosen(&["*"], &[], &others), others);
    }

    #[test]
    fn a_pattern_with_a_slash_is_of_the_whole_way() {
        let names = ["a/t1/x.nii", "a/x.nii", "x.nii", "t1.nii"];
        assert_eq!(chosen(&["t1"], &[], &names), [names[0]]);
        assert_eq!(chosen(&["a/*.nii"], &[], &names), [names[1]]);
        assert_eq!(chosen(&["a/**/*.nii"], &[], &names), [names[0], names[1]]);
        assert_eq!(chosen(&["*.nii"], &["a"], &names), [names[2], names[3]]);
        assert_eq!(chosen(&[], &["**/x.*"], &names), [names[3]]);
    }

    #[test]
    fn what_is_left_out_is_counted_by_pattern() {
        let files = FilePatterns {
            include: Vec::new(),
            exclude: patterns(&["*.png"]),
            ..FilePatterns::default()
        };
        let mut chooser = FileChooser::new(&files);
        for name in ["a.png", "b.png", "a_seg.nii", "c.nii"] {
            chooser.chooses(Path::new(name));
        }
        assert_eq!(
            chooser.note().unwrap(),
            "left out 2 files *.png, 1 file *[-_.]seg.*; masks are read where --include-files or a row of a manifest names them"
        );
        assert_eq!(FileChooser::new(&files).note(), None);
        assert!(".hidden/*".parse::<FilePattern>().is_ok());
        for wrong in ["", "a[", "***", "./a/*", "../a", "/a/*", "a/"] {
            assert!(wrong.parse::<FilePattern>().is_err(), "{wrong}");
        }
    }
}
