import ComposefsCommandSupport
import ComposefsLinuxSystem
import ComposefsOCI

// The only place that says which failure has which code and which exit status. README.md lists both.

extension ErrorCode {
    /// The code of an error of the library or of a command.
    init(of error: any Error) {
        switch error {
        case let error as CommandError: self = error.code
        case let error as ImageStoreError: self = Self.code(of: error)
        case let error as RepositoryError: self = Self.code(of: error)
        case let error as RegistryError: self = Self.code(of: error.kind)
        case let error as OCIError: self = Self.code(of: error)
        case let error as PullError: self = Self.code(of: error)
        case is SignatureRefusal: self = .refused
        case let error as PushError:
            switch error {
            case .layer(_, _, _, let cause): self = Self.ofLayer(cause)
            case .diffID, .blobDigest: self = .damaged
            default: self = .failed
            }
        case let error as MountError: self = Self.code(of: error)
        case let error as FuseError:
            switch error {
            case .busy: self = .busy
            case .system(let error): self.init(of: error)
            default: self = .failed
            }
        case let error as SystemError: self = error.errno == .noSpace || error.errno == .quotaExceeded ? .noSpace : .failed
        case is ErofsError: self = .damaged
        case DiskError.noSpace: self = .noSpace
        case let error as BootError:
            switch error {
            case .noSpace: self = .noSpace
            case .deploymentIsBooted, .deploymentIsPinned, .deploymentHasMount: self = .inUse
            case .etcUnknown(_, let cause): self.init(of: cause)
            default: self = .failed
            }
        default: self = .failed
        }
    }

    private static func code(of error: ImageStoreError) -> ErrorCode {
        switch error {
        case .noSuchImage, .imageNotFound, .noSuchIndex: .noSuchImage
        case .imageInUse: .inUse
        case .seal: .notSealed
        case .damaged: .damaged
        case .useUnknown(_, let cause): ErrorCode(of: cause)
        default: .failed
        }
    }

    private static func code(of error: RepositoryError) -> ErrorCode {
        switch error {
        case .system(let error): ErrorCode(of: error)
        case .notInitialized: .noSuchRepository
        case .imageMissing: .noSuchImage
        case .busy, .readOnly(.usedByAnotherProcess): .busy
        case .objectDamaged, .objectMissing, .objectTooLarge, .stream, .image, .invalidLink, .metadata, .unreadableRoot: .damaged
        default: .failed
        }
    }

    private static func code(of kind: RegistryError.Kind) -> ErrorCode {
        switch kind {
        case .unauthorized, .forbidden: .unauthorized
        case .blocked: .blocked
        case .notFound: .noSuchImage
        case .connection, .timeout: .unreachable
        case .digestMismatch, .sizeMismatch: .damaged
        default: .failed
        }
    }

    private static func code(of error: OCIError) -> ErrorCode {
        switch error {
        case .notFound(_, let item):
            switch item {
            case .image, .digestInArchive, .listedManifest, .entry, .storedImage, .storedName: .noSuchImage
            default: .failed
            }
        case .damaged: .damaged
        default: .failed
        }
    }

    private static func code(of error: PullError) -> ErrorCode {
        switch error {
        case .noSpace, .noInodes: .noSpace
        case .notPresent: .noSuchImage
        case .seal(let fault): fault.isRefusal ? .notSealed : .failed
        case .layer(_, _, _, let cause): ofLayer(cause)
        case .damagedLayer, .blobTooLong, .blobTooShort, .blobDigest, .diffID: .damaged
        default: .failed
        }
    }

    /// An image whose layer is missing exists all the same.
    private static func ofLayer(_ cause: any Error) -> ErrorCode {
        let code = ErrorCode(of: cause)
        return code == .noSuchImage ? .failed : code
    }

    private static func code(of error: MountError) -> ErrorCode {
        switch error {
        case .busy: .busy
        case .system(let error), .image(let error, _): ErrorCode(of: error)
        default: .failed
        }
    }

    /// The exit status of a command that fails with this.
    var status: Int32 {
        switch self {
        case .failed, .damaged, .notEmpty: 1
        case .noSuchImage, .noSuchRepository, .noSuchDisk: 3
        case .unauthorized, .blocked, .notSealed, .refused: 4
        case .unreachable: 5
        case .busy, .inUse: 6
        case .noSpace: 7
        case .usage: 64
        case .interrupted: 130
        }
    }

    /// Whether the same command may succeed later: what it has stored until then is of use.
    var isTransient: Bool { [.unreachable, .busy, .noSpace].contains(self) }
}
