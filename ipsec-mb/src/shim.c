/* What of intel-ipsec-mb cannot be called from Rust without its header: its structures change with its versions, and
 * most of its functions are pointers in them. The library itself is opened while running, under the name of the version
 * that the header is of, so that a machine without it only lacks speed. */
#include <dlfcn.h>

#include <intel-ipsec-mb.h>

/* 0x10300 is 1.3.0; the first number is that of the shared object, too. */
#define MAJOR (IMB_VERSION_NUM >> 16)
#if MAJOR == 1
#define LIBRARY "libIPSec_MB.so.1"
#elif MAJOR == 2
#define LIBRARY "libIPSec_MB.so.2"
#else
#error "a version of intel-ipsec-mb whose structures nobody has looked at"
#endif

static IMB_MGR *(*alloc)(uint64_t flags);
static void (*release)(IMB_MGR *manager);
static void (*init_avx512)(IMB_MGR *manager);
static const char *(*version)(void);

/* Once, before anything else. NULL: it is there; else why not. */
const char *vpnd_ipsec_mb_open(void) {
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return "the library is not installed (Debian: libipsec-mb1)";
    alloc = (IMB_MGR * (*)(uint64_t)) dlsym(library, "alloc_mb_mgr");
    release = (void (*)(IMB_MGR *)) dlsym(library, "free_mb_mgr");
    init_avx512 = (void (*)(IMB_MGR *)) dlsym(library, "init_mb_mgr_avx512");
    version = (const char *(*)(void)) dlsym(library, "imb_get_version_str");
    if (alloc == NULL || release == NULL || init_avx512 == NULL || version == NULL)
        return "the library lacks a function that its header has";
    return NULL;
}

/* Of the library that was opened; for ever. */
const char *vpnd_ipsec_mb_version(void) { return version(); }

/* A manager is for one thread. NULL: no memory, or a processor without what it takes. */
IMB_MGR *vpnd_ipsec_mb_new(void) {
    const uint64_t wanted = IMB_FEATURE_AVX512_SKX | IMB_FEATURE_AVX512_IFMA | IMB_FEATURE_SAFE_DATA;
    IMB_MGR *manager = alloc(0);
    if (manager == NULL)
        return NULL;
    if ((manager->features & wanted) == wanted)
        init_avx512(manager);
    if ((manager->features & wanted) == wanted && manager->imb_errno == 0)
        return manager;
    release(manager);
    return NULL;
}

void vpnd_ipsec_mb_free(IMB_MGR *manager) { release(manager); }

/* RFC 8439, section 2.8: encrypts or decrypts `text` in place; the tag of the ciphertext goes to `tag`. 0: done. */
int vpnd_ipsec_mb_run(IMB_MGR *manager, int decrypt, const uint8_t key[32], const uint8_t nonce[12],
                      const uint8_t *aad, uint64_t aad_length, uint8_t *text, uint64_t length, uint8_t tag[16]) {
    IMB_JOB *job = IMB_GET_NEXT_JOB(manager);
    job->cipher_mode = IMB_CIPHER_CHACHA20_POLY1305;
    job->hash_alg = IMB_AUTH_CHACHA20_POLY1305;
    job->cipher_direction = decrypt ? IMB_DIR_DECRYPT : IMB_DIR_ENCRYPT;
    job->chain_order = decrypt ? IMB_ORDER_HASH_CIPHER : IMB_ORDER_CIPHER_HASH;
    job->enc_keys = key;
    job->dec_keys = key;
    job->key_len_in_bytes = 32;
    job->iv = nonce;
    job->iv_len_in_bytes = 12;
    job->u.CHACHA20_POLY1305.aad = aad;
    job->u.CHACHA20_POLY1305.aad_len_in_bytes = aad_length;
    job->src = text;
    job->dst = text;
    job->cipher_start_src_offset_in_bytes = 0;
    job->msg_len_to_cipher_in_bytes = length;
    job->hash_start_src_offset_in_bytes = 0;
    job->msg_len_to_hash_in_bytes = length;
    job->auth_tag_output = tag;
    job->auth_tag_output_len_in_bytes = 16;
    /* This algorithm is done when the call returns: nothing waits for other lanes. */
    job = IMB_SUBMIT_JOB_NOCHECK(manager);
    return job != NULL && job->status == IMB_STATUS_COMPLETED ? 0 : -1;
}
