import ComposefsBootCommands
import ComposefsCommandSupport
import ComposefsLinuxSystem
import ComposefsOCI

// The command adds to an error which command or option helps. Library errors carry a code and values and name neither, because other
// programs have their own.

/// An error as one line.
func describe(_ error: any Error) -> String { String(describing: error) + (hint(for: error) ?? "") }

/// The text that follows the error's own, with its punctuation.
func hint(for error: any Error) -> String? {
    switch error {
    case let error as ImageStoreError: hint(for: error)
    case let error as RepositoryError: hint(for: error)
    case let error as BootError: hint(for: error)
    case let error as UnifiedKernelError: hint(for: error)
    case let error as RegistryError: error.remedy.map(hint)
    case let error as OCIError: hint(for: error)
    case let error as LimitExceeded: ", \(option(error.limit)) raises it"
    case let error as PullError: hint(for: error)
    case is SignaturePolicyError: "; --signature-policy names another file"
    case is SignatureRefusal: "; --signature-policy uses another policy"
    case let error as PushError: hint(for: error)
    case let error as RepairError: hint(for: error)
    case SealingError.noName: "; give it as the second argument"
    case MountError.options(.noObjects): ": use basedir=DIR, or repo=DIR with the name of an image"
    case MountError.system(let error), MountError.image(let error, _): hint(for: error)
    case let error as SystemError: hint(for: error)
    case DiskError.noSpace: "; free some space or run `cfsoci gc`, or skip this check with --no-space-check"
    case is ConfinementError: "; --no-sandbox, or CFSOCI_NO_SANDBOX=1 in the environment, runs without it"
    default: nil
    }
}

private func hint(for error: ImageStoreError) -> String? {
    switch error {
    case .noSuchImage, .imageNotFound: "; `cfsoci images` lists all images"
    case .noSuchIndex: "; `cfsoci pull --all-platforms` stores one"
    case .onlyIndex(let name, _): "; `cfsoci inspect \(Output.printable(name))` lists its images"
    case .seal(let fault): hint(for: fault)
    case .imageInUse: "; unmount it first, or remove the name with --force: what the image needs stays as long as it is in use"
    case .useUnknown(_, let error): (hint(for: error) ?? "") + "; --force removes the name anyway: gc keeps what is in use"
    case .noErofsImage(_, _, bootable: false): "; `cfsoci upgrade` or another pull makes one"
    case .noErofsImage(_, _, bootable: true): "; `cfsoci boot image IMAGE` makes one"
    default: nil
    }
}

private func hint(for error: RepositoryError) -> String? {
    switch error {
    case .system(let error):
        switch error.errno {
        case .noSpace: ": free some space or run `cfsoci gc`, then repeat the command"
        case .quotaExceeded: ": free some space or raise the quota, then repeat the command"
        case .fileTooLarge where error.operation == "write": ", then repeat the command"
        default: hint(for: error)
        }
    case .notInitialized: " (`cfsoci init`)"
    case .oldFormat: " (`cfsoci upgrade` makes it a current one)"
    case .syncFailed: "; repeat the command"
    case .untrusted(_, .owner): "; --trust-owner, or CFSOCI_TRUST_OWNER=1 in the environment, writes to it anyway"
    case .untrusted(let path, let fault):
        "; `\(fault == .accessList ? "setfacl -b" : "chmod go-w") \(Output.printable(path))` removes that permission; --trust-owner, or "
            + "CFSOCI_TRUST_OWNER=1 in the environment, writes to it anyway"
    case .notDirectory: "; remove it if it is not yours, and run `cfsoci fsck`"
    case .verityUnsupported: "; --insecure makes a repository without it"
    case .verityLost(let path): ": cfsoci init --insecure \(path)"
    case .signatureNeeded: "; sign with --sign-key and --sign-cert"
    case .unreadableRoot: "; `cfsoci fsck` lists the affected images, and `cfsoci untag NAME` removes a name so that gc can continue"
    case .source(_, .damaged): "; `cfsoci fsck` of that repository lists the affected images and what to do"
    case .objectMissing, .objectDamaged: "; `cfsoci fsck` lists the affected images and what to do"
    case .busy: "; repeat the command when it has ended, or wait for it with --wait forever"
    case .unknownUse: "; `cfsoci umount` unmounts an image"
    default: nil
    }
}

private func hint(_ remedy: RegistryError.Remedy) -> String {
    switch remedy {
    case .allowPlainTransport: "; --tls-verify=false would allow it"
    case .allowPlainHTTP: "; --tls-verify=false allows plain HTTP"
    case .trustCertificate: "; install its authority, or use --tls-verify=false"
    case .logIn: ": log in (cfsoci, podman, skopeo or docker login) or name an auth file with --authfile"
    case .correctAuthFile: "; --authfile or REGISTRY_AUTH_FILE names it"
    case .chooseAuthFile: "; --authfile names another"
    case .correctCertificateDirectory: "; --cert-dir names it"
    case .correctRegistriesConfiguration: "; --registries-conf or CONTAINERS_REGISTRIES_CONF names it"
    case .raiseManifestLimit: "; --max-manifest-size raises it"
    case .fetchForeignLayers: "; --foreign-layers fetches it from there"
    }
}

private func hint(for error: OCIError) -> String? {
    switch error {
    case .noMatchingPlatform(_, let available): available.isEmpty ? nil : "; choose one with --platform"
    default: nil
    }
}

private func hint(for error: PullError) -> String? {
    switch error {
    case .noSpace: "; free some space or run `cfsoci gc`, or skip this check with --no-space-check"
    case .noInodes: "; remove files from that file system or run `cfsoci gc`, or skip this check with --no-space-check"
    case .seal(let fault): hint(for: fault)
    case .tooManyReferrers: "; pull without --referrers, and the artifacts that you want by their digest"
    case .layer(_, _, _, let cause): hint(for: cause)
    case .damagedLayer(_, let cause): (hint(for: cause) ?? "") + "; `cfsoci fsck` lists the affected images and what to do"
    default: nil
    }
}

private func hint(for fault: SealFault) -> String? {
    switch fault {
    case .noLabel, .invalidLabel, .otherImage: "; its author seals it with `cfsoci seal`"
    case .noBootDigest: "; its author seals it with `cfsoci seal --bootable`"
    case .noConfig: "; name the image that it was made of"
    case .otherAlgorithm(let sealed, _): "; a repository that `cfsoci init --algorithm fsverity-\(sealed.name)-12` makes can use it"
    default: nil
    }
}

private func hint(for error: PushError) -> String? {
    switch error {
    case .diffID, .blobDigest: "; `cfsoci fsck` lists the affected images and what to do"
    case .manifestDigest: ", or pull with --keep-blobs so that digests stay the same"
    case .layer(_, _, _, let cause): hint(for: cause)
    case .indexIncomplete:
        "; `cfsoci pull --all-platforms` stores all of them, --index sparse sends the index without them, and --index rewrite a new index of the others"
    case .indexEmpty: "; `cfsoci pull --all-platforms` stores them"
    case .listedManifest:
        "; `cfsoci pull --all-platforms --keep-blobs` stores the blobs, and --index rewrite sends a new index with the new digests"
    default: nil
    }
}

private func hint(for error: RepairError) -> String? {
    switch error {
    case .notRebuildable(let image):
        ": `cfsoci create-image DIR \(Output.printable(image))`, or `cfsoci fsck --repair \(Output.printable(image)) --from REPO` with a repository "
            + "that has it"
    default: nil
    }
}

private func option(_ limit: LimitExceeded.Limit) -> String {
    switch limit {
    case .layerBytes: "--max-layer-size"
    case .layerEntries: "--max-layer-entries"
    case .imageEntries: "--max-image-entries"
    case .treeBytes: "--max-tree-memory"
    case .manifestBytes: "--max-manifest-size"
    case .pathBytes: "--max-path-length"
    case .xattrBytes: "--max-xattr-size"
    case .indexDepth: "--max-index-depth"
    }
}

/// Open files are named through /proc, which chroots and rescue systems may lack: the kernel then reports that there is no such file.
private func hint(for error: SystemError) -> String? {
    if Sandbox.refuses(error) {
        return
            "; the sandbox of this command does not include that path; --no-sandbox, or CFSOCI_NO_SANDBOX=1 in the environment, switches it off"
    }
    if error.errno == .noSpace { return ": free some space, then repeat the command" }
    guard error.errno == .noEntry || error.errno == .notDirectory, !Host.hasProc else { return nil }
    return "; /proc is not mounted here, which may be why: mount -t proc proc /proc"
}
