/* placeholder */
#include "demo.h"
int ram_run(struct demo *demo)
{
    return complain(PGSHARE_ERR_NOTSUP, "--ram");
}
