import ComposefsVarlink

extension VarlinkInterface {
    /// Repositories as such.
    static let repository = VarlinkInterface(
        """
        # Composefs repositories: making, opening, checking and collecting them, and mounting their images.
        interface org.composefs.Repository

        # The result of a check. Each error is a line that begins with "fsck: " and the kind of the fault.
        type FsckReply (
          ok: bool,
          has_metadata: bool,
          objects_checked: int,
          objects_corrupted: int,
          streams_checked: int,
          streams_corrupted: int,
          images_checked: int,
          images_corrupted: int,
          broken_links: int,
          missing_objects: int,
          errors: []string
        )

        # What a collection has removed, or would remove.
        type GcResult (
          objects_removed: int,
          objects_bytes: int,
          images_pruned: int,
          streams_pruned: int
        )

        type ImageRefEntry (
          name: string,
          digest: string
        )

        type EnsureStatus (Opened, Created, Upgraded)

        # With overlay, two descriptors come with the call: the upper directory and the work directory. read_write needs overlay.
        type MountParams (
          overlay: ?bool,
          read_write: ?bool
        )

        # Makes a repository and its parent directories. A repository with the same configuration is accepted.
        # The algorithm is fsverity-sha512-12 (the default) or fsverity-sha256-12; insecure makes one without fs-verity.
        method InitRepository(path: string, algorithm: ?string, insecure: ?bool) -> (created: bool)

        # The same, but accepts any existing repository, and upgrades one from before meta.json.
        method EnsureRepository(path: string, algorithm: ?string, insecure: ?bool) -> (status: EnsureStatus)

        # Opens the repository at a path, or that of the user, or that of the system. The handle belongs to this connection.
        # As long as it is open, no other program can collect garbage.
        method OpenRepository(path: ?string, user: ?bool, system: ?bool) -> (
          handle: int,
          hash_algorithm: ?string,
          objects_device_id: ?int
        )

        method CloseRepository(handle: int) -> ()

        # Checks all objects, streams and images; with metadata_only, without reading the objects.
        method Fsck(handle: int, metadata_only: ?bool) -> (
          ok: bool,
          has_metadata: bool,
          objects_checked: int,
          objects_corrupted: int,
          streams_checked: int,
          streams_corrupted: int,
          images_checked: int,
          images_corrupted: int,
          broken_links: int,
          missing_objects: int,
          errors: []string
        )

        # Removes what no reference keeps and what is not in use. Waits a few seconds for other handles of the repository.
        method Gc(handle: int, dry_run: bool, roots: []string) -> (result: GcResult, dry_run: bool)

        # The objects that an image's files need, in ascending order.
        method ImageObjects(handle: int, name: string) -> (object_ids: []string)

        # The names of images below images/refs.
        method ListImageRefs(handle: int) -> (images: []ImageRefEntry)

        # Mounts an image, by its identifier or its name, without attaching it. The descriptor with this index comes with the reply;
        # the client attaches it with move_mount(2) before it closes the handle. The mount has nosuid and nodev.
        method Mount(handle: int, name: string, options: MountParams) -> (fd_index: int)

        error RepoNotFound (message: string)
        error InvalidHandle (handle: int)
        error InvalidSpec (message: string)
        error NoSuchRef (reference: string)
        error InternalError (message: string)

        """)
}
