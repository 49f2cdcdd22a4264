//! Labels of the images of a folder: the rows of a manifest that lies in it, or the names of its folders.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use m3ret_files::plain_path;
use m3ret_imaging::{Limits, read_head};
use m3ret_manifest::columns::{FOLDER, LABEL, PATH};
use m3ret_manifest::{Manifest, Table, is_manifest, path_of, text_of};

use super::{Content, Item, Listing, Outputs, with_keys};
use crate::options::FilePatterns;
use crate::words::counted;

/// Names of a manifest that is used without being named; the first that is there and can be used counts.
const MANIFESTS: [&str; 2] = ["manifest.csv", "manifest.parquet"];

impl Listing {
    /// Puts the rows of a manifest that lies in the folder in the place of the objects that they name. Without a
    /// manifest, or with one that cannot be used, the listing stays as it is.
    pub(super) fn with_manifest_of(
        mut self,
        folder: &Path,
        outputs: &Outputs,
        files: &FilePatterns,
        limits: &Limits,
    ) -> anyhow::Result<Self> {
        for name in MANIFESTS {
            let path = folder.join(name);
            let is_left_out = !files.allow(Path::new(name), true);
            if !path.is_file() || outputs.own(&path) || is_left_out {
                continue;
            }
            match rows_of_folder(&path, folder, files, limits) {
                Ok(found) => return self.with_rows(found, name, limits),
                Err(why) => self.notes.push(format!(
                    "{name} of the folder is not used for labels: {why}; --labels none leaves it out"
                )),
            }
        }
        Ok(self)
    }

    fn with_rows(mut self, found: FolderRows, name: &str, limits: &Limits) -> anyhow::Result<Self> {
        let FolderRows {
            folder,
            table,
            rows: in_folder,
            n_outside,
            is_listed,
        } = found;
        let mut named = Named::of(&table, &in_folder);
        let held: Vec<Held> = self.items.iter().map(|item| named.holding(item)).collect();
        let rows = named.unambiguous(&table, &in_folder, &held);
        let ambiguous = "with several objects, of which a column part names one,";
        let others = [
            note_of_others(n_outside, "outside the folder"),
            note_of_others(in_folder.len() - rows.len(), ambiguous),
        ];
        let others = others.into_iter().flatten();
        if rows.is_empty() {
            self.notes.extend(others);
            return Ok(self);
        }
        let used: HashSet<&Path> = rows.iter().filter_map(|&idx| named.place(idx)).collect();
        let is_used = |held: &Held| {
            held.places
                .iter()
                .any(|place| used.contains(place.as_path()))
        };
        let further = self.items.into_iter().zip(&held);
        let further = further.filter(|(_, held)| !is_used(held));
        let mut further: Vec<Item> = further.map(|(item, _)| item).collect();
        let mut items = items_of(&table, &rows, &folder);
        let below = further
            .iter()
            .map(|item| below(&folder, &path_of(&item.path)));
        self.table = Some(table.with_paths(&rows, &below.collect::<Vec<_>>(), limits.max_bytes)?);
        self.notes.push(format!(
            "{name} of the folder is used for labels: {}, and {} that no row names; --labels none leaves it out",
            counted(rows.len() as u64, "row", "rows"),
            counted(further.len() as u64, "object", "objects"),
        ));
        self.notes.extend(others);
        items.append(&mut further);
        self.items = items;
        // The manifest holds no image, and is not foreign.
        self.n_foreign = self.n_foreign.saturating_sub(usize::from(is_listed));
        Ok(self)
    }

    /// States of each object the folder that it lies in.
    pub(super) fn with_folder_names(
        mut self,
        folder: &Path,
        limits: &Limits,
    ) -> anyhow::Result<Self> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record([PATH, LABEL, FOLDER])?;
        let mut names = HashSet::new();
        for item in &self.items {
            let way = path_of(&below(folder, &folder_of(item)));
            let way = if way == Path::new(".") {
                PathBuf::new()
            } else {
                way
            };
            let name = way
                .file_name()
                .map(Path::new)
                .map_or_else(String::new, text_of);
            writer.write_record([&below(folder, &path_of(&item.path)), &name, &text_of(&way)])?;
            if !name.is_empty() {
                names.insert(name);
            }
        }
        let bytes = writer
            .into_inner()
            .map_err(csv::IntoInnerError::into_error)?;
        let mut table = Manifest::from_bytes(bytes, folder, limits)?.load()?;
        // Names of folders are used only where a person asks for them.
        table.request(&[FOLDER.to_owned()]);
        self.table = Some(table);
        self.notes.push(format!(
            "labels are names of folders, {} in all, and are stored as they are: none should name a patient",
            counted(names.len() as u64, "name", "names")
        ));
        Ok(self)
    }
}

/// Returns some rows of a manifest as items. As for other objects of the folder, the path is that of the file.
fn items_of(table: &Table, rows: &[usize], folder: &Path) -> Vec<Item> {
    let rows = rows.iter().filter_map(|&idx| table.row(idx));
    let contents = rows.map(|row| {
        let path = text_of(&folder.join(path_of(row.path())));
        let content = Content::Row {
            path: row.file(),
            part: row.part().map(str::to_owned),
        };
        (path, content)
    });
    with_keys(contents.collect())
}

/// Says how many rows are not used.
fn note_of_others(n_rows: usize, which: &str) -> Option<String> {
    let rows = counted(
        n_rows as u64,
        "row names a file or folder",
        "rows name files or folders",
    );
    let are = if n_rows == 1 { "is" } else { "are" };
    (n_rows > 0).then(|| format!("{rows} {which} and {are} not used"))
}

/// A manifest that lies in a folder.
struct FolderRows {
    folder: PathBuf,
    table: Table,
    /// The rows of files in the folder that are read.
    rows: Vec<usize>,
    /// Number of rows of files elsewhere.
    n_outside: usize,
    /// Whether the manifest is one of the files that were looked at.
    is_listed: bool,
}

/// Reads the manifest of a folder, or says why it cannot be used.
fn rows_of_folder(
    path: &Path,
    folder: &Path,
    files: &FilePatterns,
    limits: &Limits,
) -> Result<FolderRows, String> {
    let head = read_head(path).map_err(|error| error.to_string())?;
    if !is_manifest(&head, path) {
        return Err("it is no table".to_owned());
    }
    let table = Manifest::open(path, limits).and_then(Manifest::load);
    let table = table.map_err(|error| error.to_string())?;
    // Whoever searches a folder asked for its files: a table that somebody left there opens no others.
    let folders = Folders::of(folder);
    let rows = table.rows().filter(|row| folders.hold(&row.file()));
    let rows: Vec<usize> = rows.map(|row| row.idx()).collect();
    let is_there = |&idx: &usize| table.row(idx).is_some_and(|row| row.file().exists());
    if !rows.iter().any(is_there) {
        let n_rows = counted(table.len() as u64, "row names", "rows name");
        return Err(format!("none of its {n_rows} a file that is there"));
    }
    // A row names its file: a mask by its usual name is left out only where a caller says so.
    let is_chosen = |&idx: &usize| {
        let file = table.row(idx).map(|row| row.file()).unwrap_or_default();
        let way = path_of(&below(folder, &file));
        !files.is_given() || files.allow(&way, file.is_dir())
    };
    let n_outside = table.len() - rows.len();
    let rows = rows.into_iter().filter(is_chosen).collect();
    let is_listed = path
        .file_name()
        .is_some_and(|name| files.allow(Path::new(name), false));
    Ok(FolderRows {
        folder: folder.to_owned(),
        table,
        rows,
        n_outside,
        is_listed,
    })
}

/// The names of one folder: as it was given, and without links.
struct Folders([PathBuf; 2]);

impl Folders {
    fn of(folder: &Path) -> Self {
        let named = whole(folder);
        let resolved = folder.canonicalize().unwrap_or_else(|_| named.clone());
        Self([named, resolved])
    }

    /// Returns whether a file lies in the folder, by its name or without links.
    fn hold(&self, file: &Path) -> bool {
        let is_below = |file: &Path| self.0.iter().any(|folder| file.starts_with(folder));
        is_below(&whole(file)) || file.canonicalize().is_ok_and(|file| is_below(&file))
    }
}

/// Returns a path from the root on and without detours, so that `.` holds what lies in it and nothing else.
fn whole(path: &Path) -> PathBuf {
    plain_path(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
}

/// What rows of a manifest name, without links.
struct Named {
    place_of: HashMap<usize, PathBuf>,
    places: HashSet<PathBuf>,
    resolver: Resolver,
}

impl Named {
    fn of(table: &Table, rows: &[usize]) -> Self {
        let place = |&idx: &usize| Some((idx, table.row(idx)?.file().canonicalize().ok()?));
        let place_of: HashMap<usize, PathBuf> = rows.iter().filter_map(place).collect();
        Self {
            places: place_of.values().cloned().collect(),
            place_of,
            resolver: Resolver::default(),
        }
    }

    /// Returns the file or folder that a row names, if it is there.
    fn place(&self, row_idx: usize) -> Option<&Path> {
        self.place_of.get(&row_idx).map(PathBuf::as_path)
    }

    /// Returns what rows name that is a file of an item, or a folder above one.
    fn holding(&mut self, item: &Item) -> Held {
        let path = path_of(&item.path);
        let (files, part) = match &item.content {
            Content::Object(object) => (object.files.as_slice(), &object.part),
            Content::Row { path, part } => (std::slice::from_ref(path), part),
            Content::Memory(_) | Content::Unreadable { .. } => (std::slice::from_ref(&path), &None),
        };
        let mut places = Vec::new();
        let mut first = None;
        for file in files {
            let file = self.resolver.resolve(file);
            let above = file.ancestors().filter_map(|place| self.places.get(place));
            places.extend(above.cloned());
            first.get_or_insert(file);
        }
        places.sort_unstable();
        places.dedup();
        let object = (first.unwrap_or(path), part.clone());
        Held { places, object }
    }

    /// Returns the rows that name one object: a row of a whole folder says nothing of which of them it means.
    fn unambiguous(&self, table: &Table, rows: &[usize], held: &[Held]) -> Vec<usize> {
        let mut objects: HashMap<&Path, HashSet<_>> = HashMap::new();
        for Held { places, object } in held {
            for place in places {
                objects.entry(place).or_default().insert(object);
            }
        }
        let has_several = |place: &Path| objects.get(place).is_some_and(|there| there.len() > 1);
        let is_one = |&idx: &usize| {
            let has_part = table.row(idx).is_some_and(|row| row.part().is_some());
            has_part || !self.place(idx).is_some_and(has_several)
        };
        rows.iter().copied().filter(is_one).collect()
    }
}

/// What rows name of an item.
struct Held {
    places: Vec<PathBuf>,
    /// The first file, without links, and the part: equal for the names of one object.
    object: (PathBuf, Option<String>),
}

/// Resolves links of files, and those of each folder once: a series has many files.
#[derive(Default)]
struct Resolver(HashMap<PathBuf, PathBuf>);

impl Resolver {
    fn resolve(&mut self, file: &Path) -> PathBuf {
        let is_link = file
            .symlink_metadata()
            .is_ok_and(|status| status.is_symlink());
        let (false, Some(folder), Some(name)) = (is_link, file.parent(), file.file_name()) else {
            return file.canonicalize().unwrap_or_else(|_| file.to_owned());
        };
        let folder = match folder == Path::new("") {
            true => Path::new("."),
            false => folder,
        };
        if let Some(resolved) = self.0.get(folder) {
            return resolved.join(name);
        }
        let resolved = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let file = resolved.join(name);
        self.0.insert(folder.to_owned(), resolved);
        file
    }
}

/// Returns the folder that holds the files of an item.
fn folder_of(item: &Item) -> PathBuf {
    let path = path_of(&item.path);
    let file = match &item.content {
        Content::Object(object) => object.files.first().unwrap_or(&path),
        Content::Row { path, .. } => path,
        Content::Memory(_) | Content::Unreadable { .. } => &path,
    };
    file.parent().unwrap_or(file).to_owned()
}

/// Returns the way from a folder to something in it.
fn below(folder: &Path, path: &Path) -> String {
    match path.strip_prefix(folder) {
        Ok(below) if below == Path::new("") => ".".to_owned(),
        Ok(below) => text_of(below),
        Err(_) => text_of(path),
    }
}
