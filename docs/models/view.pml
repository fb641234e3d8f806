/* View change + mirror + amnesia + read grants + joining.  One block, versions totally ordered (policing abstracted by `busy`).
   Each guarded d_step is one host's atomic run-to-completion step.
   Flags:  -DDATA=<mask> data hosts, -DN=<voters>, -DVIEW0=<initial members>
     INC     a restarted host is a new incarnation: not an "intact" member (needs re-admission)
     VWAIT   a restarted voter accepts nothing until grants it may have given have run out
     SEALED  new members must be in the promise set (else: any previous member may be named)
     NORENEW a voter that promised a newer epoch gives no grant for an older one
     JCOMMIT joining hosts are in the commit set (recipients = members+joining) and join by a view change
     CREAD   resync copies are committed reads   (else source copies whatever its log has)
     OPEN    no I/O in a view before every recipient has said ACTIVE (else members act as soon as themselves reconciled)
   What the program does beyond the rules as first written (docs/protocol.md says why), each safe with the rules above on:
     LATE    a voter that learns of a decided view accepts it although it was not in the promise set
     ASSUME  instead of VWAIT: a restarted voter takes the members of its accepted view as granted
     RETURN  a promise returns the promiser's grants: voters need not wait for them; no reads after a promise
   and the mistake next to it:  RETURNREAD  RETURN, but reads go on after the promise */
#ifndef N
#define N 3
#endif
#ifndef DATA
#define DATA 3
#endif
#ifndef VIEW0
#define VIEW0 DATA
#endif
#ifndef MAXEP
#define MAXEP 3
#endif
#ifndef MAXV
#define MAXV 2
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#define bit(h) (1<<(h))
#define has(m,h) (((m)>>(h))&1)
#define MAJ (N/2+1)
#define NEED (N-MAJ+1)
#define cnt(m) (has(m,0)+has(m,1)+has(m,2))
byte prom[N], acc[N];              /* durable voter state */
byte memb[MAXEP+1], joi[MAXEP+1], acks[MAXEP+1], parent[MAXEP+1], prset[MAXEP+1]; bit decided[MAXEP+1];
byte act[N];                       /* epoch the host is active in; 0 = none */
byte actmask[MAXEP+1];
byte logv[N], dur[N];              /* newest version in log (memory), on disk */
byte inc[N]; byte minc0[MAXEP+1], minc1[MAXEP+1], minc2[MAXEP+1];
bit up[N]; bit complete[N];
byte gV[N], gA[N];                 /* gV[v]: mask of hosts voter v granted; gA[h]: mask of voters h holds */
byte lastEp=1, ver=0, acked=0, seen=0;
byte crashes=0;
/* in-flight write */
bit wr=0; byte wv, ws, we, wack;
byte comm[N];                      /* newest version host h KNOWS committed */
byte h,t,p,q,e,P,i,el,nm,nj,m;
#define INCOF(e,h) (h==0->minc0[e]:(h==1->minc1[e]:minc2[e]))
#ifdef INC
#define INTACT(e,h) (has(memb[e],h) && INCOF(e,h)==inc[h])
#define JINTACT(e,h) (has(joi[e],h) && INCOF(e,h)==inc[h])
#else
#define INTACT(e,h) (has(memb[e],h))
#define JINTACT(e,h) (has(joi[e],h))
#endif
#ifdef JCOMMIT
#define RECIP(e) (memb[e]|joi[e])
#else
#define RECIP(e) (memb[e])
#endif
#ifdef OPEN
#define CANIO(h,e) (actmask[e]==RECIP(e))
#else
#define CANIO(h,e) (1)
#endif

#ifdef RETURN
#define HELD(t,e) (gV[t] & ~memb[e] & ~prset[e])
#else
#define HELD(t,e) (gV[t] & ~memb[e])
#endif
#define PICK(v,lo,hi) v=lo; do :: v<hi -> v++ :: break od
#define UPM (up[0]|(up[1]<<1)|(up[2]<<2))
#define RST h=0;t=0;q=0;nm=0;nj=0;e=0;P=0;el=0;m=0;i=0
#define READYREC(e,x) ((has(RECIP(e),x)==0) || (x<N && up[x] && prom[x]==e && INCOF(e,x)==inc[x]))
init {
  d_step { memb[1]=VIEW0; decided[1]=1; actmask[1]=VIEW0; prset[1]=7;
    for (i:0..(N-1)) { prom[i]=1; acc[i]=1; up[i]=1; act[i]=(has(VIEW0,i)->1:0); complete[i]=has(VIEW0,i) } i=0; }
  do
  :: atomic { (!wr && ver<MAXV); PICK(h,0,N-1);
       (up[h] && act[h]>0 && has(memb[act[h]],h) && prom[h]==act[h] && CANIO(h,act[h]));
       ver++; wv=ver; ws=h; we=act[h]; wr=1; wack=bit(h); logv[h]=wv; 
       printf("WRITE v%d at host %d epoch %d\n",wv,h,we); RST }
  :: atomic { (wr && up[ws] && act[ws]==we); PICK(t,0,N-1);
       (up[t] && act[t]==we && prom[t]==we && has((memb[we]|joi[we]),t) && !has(wack,t));
       logv[t]=(logv[t]<wv->wv:logv[t]); wack=wack|bit(t); printf("RECEIVED v%d at host %d\n",wv,t); RST }
  :: atomic { (wr && up[ws] && act[ws]==we && ((wack & RECIP(we))==RECIP(we)));
       acked=(wv>acked->wv:acked); printf("COMMIT+ACK v%d\n",wv); comm[ws]=wv; wr=0; wack=0; wv=0; ws=0; we=0 }
  :: atomic { (wr && (!up[ws] || act[ws]!=we)); wr=0; wack=0; wv=0; ws=0; we=0 }
  :: atomic { (crashes<CRASHES); PICK(h,0,N-1); (up[h]); crashes++; up[h]=0; comm[h]=0;
       if :: logv[h]=dur[h] :: dur[h]=logv[h] fi;   /* power cut: the tail is lost or not */
#ifdef INC
       act[h]=0; complete[h]=0;
#endif
       gA[h]=0; printf("POWER CUT host %d, log now v%d\n",h,logv[h]); RST }
  :: atomic { PICK(h,0,N-1); (!up[h]);
#ifdef VWAIT
       (has(gA[0],h)==0 && has(gA[1],h)==0 && (N<3 || has(gA[2],h)==0));
#endif
       up[h]=1; inc[h]++;
#ifdef ASSUME
       gV[h]=memb[acc[h]] & ~bit(h);
#else
       gV[h]=0;
#endif
       printf("RESTART host %d\n",h); RST }
  :: atomic { PICK(h,0,N-1); PICK(t,0,N-1);
       (up[h] && up[t] && has(DATA,h) && has(memb[acc[t]],h) && !has(gA[h],t));
#ifdef NORENEW
       (prom[t]==acc[t]);
#endif
#ifdef RETURN
#ifndef RETURNREAD
       (prom[h]==acc[t]);   /* a grant of an epoch the asker has left is not counted by it */
#endif
#endif
       gV[t]=gV[t]|bit(h); gA[h]=gA[h]|bit(t); printf("GRANT voter %d -> host %d\n",t,h); RST }
  :: atomic { PICK(h,0,N-1); (gA[h]!=0); gA[h]=0; printf("GRANTS of host %d ran out\n",h); RST }
  :: atomic { PICK(t,0,N-1); PICK(h,0,N-1); (has(gV[t],h) && has(gA[h],t)==0); gV[t]=gV[t]& ~bit(h); RST }
  :: atomic { (lastEp<MAXEP); PICK(q,1,(1<<N)-1); (cnt(q)>=MAJ && (q & UPM)==q);
       P=0; for (i:0..(N-1)) { if :: has(q,i) && acc[i]>P -> P=acc[i] :: else fi };
       for (i:0..(N-1)) { if
#ifdef SEALED
            :: (has(q,i) && ( INTACT(P,i) || (JINTACT(P,i) && complete[i] && decided[P]) )) -> el=el|bit(i)
#else
            :: ( INTACT(P,i) || (has(joi[P],i) && complete[i]) ) -> el=el|bit(i)
#endif
            :: else fi };
       PICK(nm,1,(1<<N)-1); ((nm & el)==nm);
       PICK(nj,0,(1<<N)-1); ((nj & nm)==0 && (nj & DATA & q)==nj);
#ifdef FULLR1
       ((nm & el & q) == (el & q));
#endif
       lastEp++; e=lastEp; memb[e]=nm; joi[e]=nj; parent[e]=P; acks[e]=0; prset[e]=q;
       minc0[e]=inc[0]; minc1[e]=inc[1]; minc2[e]=(N>2->inc[2]:0);
       for (i:0..(N-1)) { if :: has(q,i) -> prom[i]=e;
#ifdef RETURN
#ifndef RETURNREAD
          gA[i]=0;
#endif
#endif
          :: else fi;
          if :: has(nj,i) && !(JINTACT(P,i) && complete[i]) -> complete[i]=0 :: else fi };
       printf("PREPARE epoch %d parent %d promised-by %d members %d joining %d\n",e,P,q,nm,nj); RST }
  :: atomic { (lastEp>1); PICK(e,2,lastEp); PICK(t,0,N-1);
       (up[t] && prom[t]==e && has(prset[e],t) && acc[t]<e && (HELD(t,e)==0));
       acc[t]=e; acks[e]=acks[e]|bit(t); decided[e]=(cnt(acks[e])>=MAJ -> 1 : 0); printf("ACCEPT epoch %d by %d (decided=%d)\n",e,t,decided[e]); RST }
#ifdef LATE
  :: atomic { (lastEp>1); PICK(e,2,lastEp); PICK(t,0,N-1);
       (up[t] && decided[e] && prom[t]<=e && acc[t]<e);
       ((gV[t] & ~memb[e])==0);
       prom[t]=e; acc[t]=e; acks[e]=acks[e]|bit(t); printf("LATE ACCEPT epoch %d by %d\n",e,t); RST }
#endif
  :: atomic { (lastEp>1); PICK(e,2,lastEp); PICK(h,0,N-1);
       (decided[e] && up[h] && prom[h]<=e && act[h]<e && has((memb[e]|joi[e]),h));
#ifdef SEALED
       (READYREC(e,0) && READYREC(e,1) && READYREC(e,2));
#endif
       prom[h]=e;
       for (i:0..(N-1)) { if :: has(RECIP(e),i) && up[i] && logv[i]>m -> m=logv[i] :: else fi };
       if :: has(memb[e],h) -> logv[h]=m; assert(m>=acked); assert(m>=seen)
          :: else -> skip fi;
       act[h]=e; actmask[e]=actmask[e]|bit(h);
       printf("ACTIVE epoch %d at host %d log v%d\n",e,h,logv[h]);
       
#ifdef OPEN
       if :: ((actmask[e]&RECIP(e))==RECIP(e)) -> for (i:0..(N-1)) { if :: act[i]==e && has(memb[e],i) -> comm[i]=m :: else fi } :: else fi;
#else
       comm[h]=m;
#endif
       RST }
  :: atomic { PICK(h,0,N-1); PICK(t,0,N-1);
       (up[h] && up[t] && act[h]>1 && act[h]==act[t] && prom[t]==act[t] && has(memb[act[h]],h) && has(joi[act[h]],t) && !complete[t]);
#ifdef CREAD
       (!wr || wv!=logv[h]);
#endif
       logv[t]=(logv[t]<logv[h]->logv[h]:logv[t]); complete[t]=1; printf("COPY %d->%d v%d, joiner complete\n",h,t,logv[t]); RST }
  :: atomic { PICK(h,0,N-1);
       (up[h] && act[h]>0 && has(memb[act[h]],h) && has(memb[acc[h]],h) && cnt(gA[h])>=NEED && CANIO(h,act[h])
#ifdef RETURN
#ifndef RETURNREAD
         && prom[h]==act[h]
#endif
#endif
         && logv[h]<=(comm[h]>acked->comm[h]:acked) && (logv[h]!=seen || logv[h]<acked));
       printf("READ at host %d gives v%d (acked v%d, seen v%d)\n",h,logv[h],acked,seen);
       assert(logv[h]>=acked); assert(logv[h]>=seen); seen=logv[h]; RST }
  od
}
