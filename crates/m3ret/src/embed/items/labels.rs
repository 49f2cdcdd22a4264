//! Labels of the images of a folder: the rows of a manifest that lies in it, or the names of its folders.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use m3ret_files::plain_path;
use m3ret_imaging::{Limits, read_head};
use m3ret_manifest::columns::{FOLDER, LABEL, PATH};
use m3ret_manifest::{Manifest, Row, Table, is_manifest, path_of, text_of};

use super::{Content, Item, Listing, Outputs, with_keys};
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
        limits: &Limits,
    ) -> anyhow::Result<Self> {
        for name in MANIFESTS {
            let path = folder.join(name);
            if !path.is_file() || outputs.own(&path) {
                continue;
            }
            match rows_of_folder(&path, folder, limits) {
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
            rows,
        } = found;
        let used = rows.iter().filter_map(|&idx| table.row(idx));
        let named = Named::of(used.clone());
        let mut resolver = Resolver::default();
        self.items.retain(|item| !named.holds(item, &mut resolver));
        // As for other objects of the folder, the path is that of the file.
        let contents = used.map(|row| {
            let path = text_of(&folder.join(path_of(row.path())));
            let part = row.part().map(str::to_owned);
            (
                path,
                Content::Row {
                    path: row.file(),
                    part,
                },
            )
        });
        let mut items = with_keys(contents.collect());
        let further = self
            .items
            .iter()
            .map(|item| below(&folder, &path_of(&item.path)));
        let further: Vec<String> = further.collect();
        self.notes
            .push(note_of_rows(name, rows.len(), further.len()));
        if rows.len() < table.len() {
            let n_outside = (table.len() - rows.len()) as u64;
            self.notes.push(format!(
                "{} outside the folder and {} not used; name {name} itself to use all its rows",
                counted(n_outside, "row names a file", "rows name files"),
                if n_outside == 1 { "is" } else { "are" },
            ));
        }
        self.table = Some(table.with_paths(&rows, &further, limits.max_bytes)?);
        items.append(&mut self.items);
        self.items = items;
        // The manifest holds no image, and is not foreign.
        self.n_foreign = self.n_foreign.saturating_sub(1);
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
        self.table = Some(Manifest::from_bytes(bytes, folder, limits)?.load()?);
        self.notes.push(format!(
            "labels are names of folders, {} in all, and are stored as they are: none should name a patient",
            counted(names.len() as u64, "name", "names")
        ));
        Ok(self)
    }
}

fn note_of_rows(name: &str, n_rows: usize, n_further: usize) -> String {
    format!(
        "{name} of the folder is used for labels: {}, and {} that no row names; --labels none leaves it out",
        counted(n_rows as u64, "row", "rows"),
        counted(n_further as u64, "object", "objects"),
    )
}

/// A manifest that lies in a folder.
struct FolderRows {
    folder: PathBuf,
    table: Table,
    /// The rows of files in the folder.
    rows: Vec<usize>,
}

/// Reads the manifest of a folder, or says why it cannot be used.
fn rows_of_folder(path: &Path, folder: &Path, limits: &Limits) -> Result<FolderRows, String> {
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
    Ok(FolderRows {
        folder: folder.to_owned(),
        table,
        rows,
    })
}

/// The names of one folder: as it was given, and without links.
struct Folders([PathBuf; 2]);

impl Folders {
    fn of(folder: &Path) -> Self {
        let resolved = folder.canonicalize();
        Self([
            plain_path(folder),
            resolved.unwrap_or_else(|_| folder.to_owned()),
        ])
    }

    /// Returns whether a file lies in the folder, by its name or without links.
    fn hold(&self, file: &Path) -> bool {
        let is_below = |file: &Path| self.0.iter().any(|folder| file.starts_with(folder));
        is_below(&plain_path(file)) || file.canonicalize().is_ok_and(|file| is_below(&file))
    }
}

/// What the rows of a manifest name, without links.
struct Named(HashSet<PathBuf>);

impl Named {
    fn of<'a>(rows: impl Iterator<Item = Row<'a>>) -> Self {
        Self(
            rows.filter_map(|row| row.file().canonicalize().ok())
                .collect(),
        )
    }

    /// Returns whether a file of an item is one that a row names, or lies in a folder that a row names.
    fn holds(&self, item: &Item, resolver: &mut Resolver) -> bool {
        let mut is_named = |file: &Path| {
            let file = resolver.resolve(file);
            file.ancestors().any(|place| self.0.contains(place))
        };
        match &item.content {
            Content::Object(object) => object.files.iter().any(|file| is_named(file)),
            Content::Row { path, .. } => is_named(path),
            Content::Unreadable { .. } => is_named(&path_of(&item.path)),
        }
    }
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
        Content::Unreadable { .. } => &path,
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
