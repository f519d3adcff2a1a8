import ComposefsVarlink

extension VarlinkInterface {
    /// OCI images in repositories.
    static let oci = VarlinkInterface(
        """
        # OCI images in composefs repositories. Handles are those of org.composefs.Repository.OpenRepository.
        interface org.composefs.Oci

        type ImageEntry (
          name: string,
          manifest_digest: string,
          is_container: bool,
          architecture: string,
          os: string,
          created: ?string,
          layer_count: int,
          referrer_count: int
        )

        # The check of the repository itself, as org.composefs.Repository.Fsck replies it.
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

        # Which extended attributes an image keeps: security.capability alone, or the user's own too.
        type XattrFiltering (AllowlistOnly, KeepUserXattrs)

        type ProgressUnit (Bytes, Items)

        type Started (
          id: string,
          total: ?int,
          unit: ProgressUnit
        )

        type Progress (
          id: string,
          fetched: int,
          total: ?int
        )

        type Skipped (
          id: string
        )

        type Done (
          id: string,
          transferred: int
        )

        type Completed (
          manifest_digest: string,
          config_digest: string,
          manifest_verity: string,
          config_verity: string,
          stats: string,
          boot_image: ?string,
          boot_image_mode: ?string,
          boot_image_format_version: ?string
        )

        # With overlay, two descriptors come with the call: the upper directory and the work directory. read_write needs overlay.
        type MountParams (
          overlay: ?bool,
          read_write: ?bool
        )

        type StorageLocator (
          storage_path: string,
          layer_id: string
        )

        # The layer in the repository has a diff_id. This service has no layers of containers-storage to give.
        # Files that others may not read are sent in line, unless the consumer has CAP_DAC_OVERRIDE.
        type GetLayerParams (
          diff_id: ?string,
          storage: ?StorageLocator,
          consumer_has_cap_dac_override: ?bool
        )

        type LayerRef (
          diff_id: string,
          layer_verity: string
        )

        # The tagged images whose names contain the filter.
        method ListImages(handle: int, filter: ?string) -> (images: []ImageEntry)

        # Checks the repository, and all images or one of them.
        method Check(handle: int, image: ?string) -> (
          ok: bool,
          images_checked: int,
          images_corrupted: int,
          errors: []string,
          repo: FsckReply
        )

        # Manifest and config as they are stored, and the identifiers of the EROFS images in the repository's format.
        method Inspect(handle: int, image: string) -> (
          manifest: string,
          config: string,
          referrers: []string,
          composefs_erofs: ?string,
          composefs_boot_erofs: ?string
        )

        method Tag(handle: int, manifest_digest: string, name: string) -> ()

        method Untag(handle: int, name: string) -> ()

        # Computes the identifier of an image's EROFS image from its layers. With verity, the stream of the config must have it.
        method ComputeId(
          handle: int,
          image: string,
          verity: ?string,
          bootable: bool,
          xattrs: ?XattrFiltering
        ) -> (image_id: string)

        # Pulls an image from any source that `cfsoci pull` has, and verifies all of it. With `more`, there are replies about the
        # progress, each with one member, before the last one, which has `completed`. A pull ends when the client closes the
        # connection. local_fetch zerocopy is refused for containers-storage, whose files are copied.
        # expected_digest needs bootable and excludes xattrs.
        method Pull(
          handle: int,
          image: string,
          name: ?string,
          local_fetch: string,
          storage_root: ?string,
          bootable: bool,
          xattrs: ?XattrFiltering,
          expected_digest: ?string
        ) -> (
          started: ?Started,
          progress: ?Progress,
          skipped: ?Skipped,
          done: ?Done,
          message: ?string,
          completed: ?Completed
        )

        # As org.composefs.Repository.Mount, for an OCI image or, with bootable, its image for booting.
        method OciMount(handle: int, image: string, bootable: bool, options: MountParams) -> (fd_index: int)

        method GetInfo() -> (features: []string)

        method HasLayer(handle: int, diff_id: string) -> (present: bool, layer_verity: ?string)

        # Sends a layer as a "splitdirfdstream". The descriptors of all replies in a row are a pipe with the stream, dir_count
        # directories that it names by index, and others that must stay open until the files have been read.
        method GetLayer(handle: int, params: GetLayerParams) -> (dir_count: int)

        # Stores a layer from a "splitdirfdstream", if its archive has the diff ID. The descriptors of the call are a pipe with
        # the stream, and the directories that it names. zerocopy is refused: objects are copied.
        method PutLayer(handle: int, diff_id: string, zerocopy: bool) -> (
          layer_verity: string,
          already_present: bool,
          objects_reflinked: int,
          objects_hardlinked: int,
          objects_copied: int,
          objects_already_present: int
        )

        # Stores an image whose layers are in the repository. Without a name it has no tag, and the next collection removes it.
        method FinalizeImage(
          handle: int,
          manifest_json: string,
          config_json: string,
          layers: []LayerRef,
          name: ?string
        ) -> (
          manifest_digest: string,
          manifest_verity: string,
          config_digest: string,
          config_verity: string
        )

        error RepoNotFound (message: string)
        error InvalidHandle (handle: int)
        error NoSuchImage (image: string)
        error InternalError (message: string)
        error NoSuchLayer (diff_id: string)
        error InvalidDigest (message: string)
        error DiffIdMismatch (expected: string, actual: string)
        error InvalidRequest (message: string)
        error FdLimitExceeded (fd_count: int, max_per_frame: int)
        error BootImageMismatch (expected: string, tried: int)

        """)
}
