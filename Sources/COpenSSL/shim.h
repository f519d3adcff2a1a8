#include <openssl/evp.h>
#include <string.h>
